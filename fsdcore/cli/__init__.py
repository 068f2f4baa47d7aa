"""The command line, ``fsd``."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

# What the extra `client` brings and the command line cannot do without.
_CLIENT = ("typer", "rich", "click")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fsd`` with `arguments`, those of the process if None; returns the exit code."""
    try:
        from fsdcore.cli.app import app
        from fsdcore.cli.signals import ending_like_ctrl_c
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _CLIENT:
            raise
        sys.stderr.write(
            f"fsd: error: the command line needs the package {error.name!r}, which is not installed; "
            "run: pip install 'fsd-inference[client]'\n"
        )
        return 1
    _show_what_can_be_shown()
    try:
        with ending_like_ctrl_c():
            app(args=None if arguments is None else list(arguments), prog_name="fsd")
    except SystemExit as stop:
        return _flushed(stop.code)
    return _flushed(0)


def _show_what_can_be_shown() -> None:
    """What the encoding of a terminal does not have is written as an escape, not raised."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: str | int | None) -> int:
    """The exit code, once stdout is written out; a reader that went away must not show at shutdown."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else int(code is not None)
