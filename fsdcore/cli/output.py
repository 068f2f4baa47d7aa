"""What commands write: tables, numbers, files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fsdcore.errors import InputError
from fsdcore.units import bytes_, plain

__all__ = ["check_output", "console", "say", "size", "table", "version"]

# Where stdout is no terminal, lines are as long as they need to be.
_PIPE_WIDTH = 1000


def console() -> Console:
    """Where results go: stdout. Nothing in them is read as markup."""
    plain = Console(markup=False, highlight=False, emoji=False)
    return plain if plain.is_terminal else Console(markup=False, emoji=False, no_color=True, width=_PIPE_WIDTH)


def say(line: str) -> None:
    """One line on stdout."""
    typer.echo(line)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Write a table to stdout; columns of numbers are set to the right."""
    cells = [tuple(row) for row in rows]
    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        right = all(_numeric(row[number]) for row in cells)
        drawn.add_column(Text(heading), justify="right" if right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*map(Text, row))
    console().print(drawn)


def _numeric(cell: str) -> bool:
    return cell[:1].isdigit() or cell in ("", "-")


def size(count: float) -> str:
    """Bytes for people: ``1.5 MB``."""
    return plain(bytes_(count))


def version(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_output(path: Path | None, endings: Sequence[str] = ()) -> None:
    """`InputError` if `path` cannot be written: found before the work, not after it.

    A file that is there already is no problem: it will be replaced.
    """
    if path is None:
        return
    folder = path.parent
    if endings and path.suffix not in endings:
        raise InputError(f"{path}: the name must end in {' or '.join(endings)}")
    if not folder.is_dir():
        raise InputError(f"{path}: cannot be written: there is no folder {folder}")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: cannot be written: it is there and is not a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written: no permission to write in {folder.resolve()}")
