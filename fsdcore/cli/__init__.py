"""The command line, ``fsd``."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence

from fsdcore.cli.signals import ending_like_ctrl_c, exit_code

__all__ = ["main"]

# What the extra `client` brings and the command line cannot do without.
_CLIENT = ("typer", "rich", "click")
# What is said has nowhere to go: the reader left, the disk is full.
_NOWHERE = {errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fsd`` with `arguments`, those of the process if None; returns the exit code."""
    _have_streams()
    try:
        with ending_like_ctrl_c():
            return _run(arguments)
    except KeyboardInterrupt as error:
        # Before there was a command to stop.
        sys.stderr.write("fsd: stopped\n")
        return exit_code(error)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        from fsdcore.cli.app import app
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
        app(args=None if arguments is None else list(arguments), prog_name="fsd")
    except SystemExit as stop:
        return _flushed(stop.code)
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        _forget_stdout()
        return 1
    return _flushed(0)


def _have_streams() -> None:
    """Where standard output or error is closed, what is written goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _show_what_can_be_shown() -> None:
    """What the encoding of a terminal does not have is written as an escape, not raised."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushed(code: str | int | None) -> int:
    """The exit code, once stdout is written out; a reader that went away must not show at shutdown."""
    try:
        sys.stdout.flush()
    except OSError:
        _forget_stdout()
        return 1
    return code if isinstance(code, int) else int(code is not None)


def _forget_stdout() -> None:
    """Nobody takes what is still to be written: Python must not try again, and fail, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
