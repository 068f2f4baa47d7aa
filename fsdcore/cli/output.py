"""What commands write: tables, numbers, files."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fsdcore.errors import InputError
from fsdcore.files import check_writable, is_straight
from fsdcore.record.observer import Observer, Silent
from fsdcore.text import bytes_, plain, printable

# Where there is no terminal, lines are as long as they need to be.
_PIPE_WIDTH = 1000


def console(stderr: bool = False) -> Console:
    """Stdout, where results go, or stderr. Nothing in them is read as markup.

    A terminal is what says it is one: no variable, such as FORCE_COLOR, makes a pipe one.
    """
    if (sys.stderr if stderr else sys.stdout).isatty():
        return Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    return Console(stderr=stderr, markup=False, emoji=False, force_terminal=False, no_color=True, width=_PIPE_WIDTH)


def say(line: str) -> None:
    """One line on stdout."""
    typer.echo(printable(line))


def say_all(text: str) -> None:
    """Text of the project's own, of several lines, on stdout."""
    for line in text.splitlines():
        say(line)


def tell(line: str) -> None:
    """One line on stderr, for people: what went wrong, or what is waited for."""
    typer.echo(f"fsd: {printable(line)}", err=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Write a table to stdout; columns of numbers are set to the right."""
    cells = [tuple(row) for row in rows]
    named = None if title is None else _cell(title)
    drawn = Table(box=box.SIMPLE_HEAD, title=named, title_justify="left", show_edge=False, pad_edge=False)
    for number, heading in enumerate(headings):
        right = all(_numeric(row[number]) for row in cells)
        drawn.add_column(_cell(heading), justify="right" if right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*map(_cell, row))
    console().print(drawn)


def _cell(text: str) -> Text:
    return Text(printable(text))


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


def check_output(path: Path | None, endings: Sequence[str] = (), one_format: bool = False) -> None:
    """`InputError` if `path` cannot be written: found before the work, not after it.

    A file that is there already is no problem: it will be replaced. With `one_format` the ending chooses nothing, and
    what is no file, such as ``/dev/stdout``, needs none.
    """
    if path is None:
        return
    if endings and path.suffix not in endings and not (one_format and is_straight(path)):
        raise InputError(f"{path}: the name must end in {' or '.join(endings)}")
    check_writable(path)


class Bars:
    """An observer that draws one bar per task, and takes it away when the task ends.

    Threads may call it at once, and out of order: a bar never goes back.
    """

    def __init__(self, drawn: Progress) -> None:
        self._drawn = drawn
        self._bars: dict[str, tuple[TaskID, int]] = {}
        self._lock = threading.Lock()

    def progress(self, task: str, done: int, total: int) -> None:
        """Move the bar of `task`."""
        with self._lock:
            bar, before = self._bars.get(task) or (self._drawn.add_task(printable(task), total=total), 0)
            if done >= total:
                self._drawn.remove_task(bar)
                self._bars.pop(task, None)
                return
            done = max(done, before)
            self._drawn.update(bar, completed=done, total=total)
            self._bars[task] = (bar, done)

    def notice(self, text: str) -> None:
        """Write the line above the bars."""
        self._drawn.console.print(Text(f"fsd: {printable(text)}"))


@contextmanager
def watching() -> Iterator[Observer]:
    """An observer for the block: bars on stderr if that is a terminal, only notices if it is not."""
    drawn_on = console(stderr=True)
    if not drawn_on.is_terminal:
        yield _Plain()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=drawn_on, transient=True) as drawn:
        yield Bars(drawn)


class _Plain(Silent):
    """An observer that writes notices alone, a line each on stderr."""

    def notice(self, text: str) -> None:
        tell(text)
