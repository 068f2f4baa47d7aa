"""What is told while long work goes on, and to whom.

The core speaks to an `Observer`; it never prints. The command line draws a progress bar from it, a program may
pass its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from fsdcore.record.record import Record, Setting


class Observer(Protocol):
    """Hears of progress. May be called from several threads at once."""

    def progress(self, task: str, done: int, total: int) -> None:
        """`done` of `total` steps of `task` are finished; a task ends when they are equal."""


@runtime_checkable
class Follower(Observer, Protocol):
    """An observer that also follows what a session does, from beginning to end."""

    def during(self, task: str, about: Mapping[str, Setting]) -> AbstractContextManager[Callable[[Record], None]]:
        """A block in which the session does `task`, ``load`` or ``run``; a run that is done tells its record."""


@runtime_checkable
class Listener(Observer, Protocol):
    """An observer that also hears what a user should know while it happens."""

    def notice(self, text: str) -> None:
        """One line, such as whom a run waits for."""


class Silent:
    """An observer that does nothing."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Accepts any step and shows nothing."""
        del task, done, total


SILENT = Silent()


def notice(observer: Observer, text: str) -> None:
    """Tell an observer that listens."""
    if isinstance(observer, Listener):
        observer.notice(text)


def following(
    observer: Observer, task: str, about: Mapping[str, Setting]
) -> AbstractContextManager[Callable[[Record], None]]:
    """`during` of an observer that follows; of any other, a block that tells nobody."""
    return observer.during(task, about) if isinstance(observer, Follower) else nullcontext(_ignore)


def _ignore(record: Record) -> None:
    del record
