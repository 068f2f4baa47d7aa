"""What is told while long work goes on, and to whom.

The core speaks to an `Observer`; it never prints. The command line draws a progress bar from it, a program may
pass its own.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["SILENT", "Observer", "Silent"]


class Observer(Protocol):
    """Hears of progress. May be called from several threads at once."""

    def progress(self, task: str, done: int, total: int) -> None:
        """`done` of `total` steps of `task` are finished; a task ends when they are equal."""


class Silent:
    """An observer that does nothing."""

    def progress(self, task: str, done: int, total: int) -> None:
        del task, done, total


SILENT = Silent()
