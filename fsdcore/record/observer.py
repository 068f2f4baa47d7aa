"""Progress and notices of long work, and who receives them.

The core reports to an `Observer` and never prints. The command line draws a progress bar from it, and a program may
pass its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from fsdcore.record.record import Record, Setting


class Observer(Protocol):
    """Receives progress. May be called from several threads at once."""

    def progress(self, task: str, done: int, total: int) -> None:
        """`done` of `total` steps of `task` are finished; a task ends when they are equal."""


@runtime_checkable
class Follower(Observer, Protocol):
    """An observer that also follows what a session does, from beginning to end."""

    def during(self, task: str, about: Mapping[str, Setting]) -> AbstractContextManager[Callable[[Record], None]]:
        """A block in which the session does `task`, ``load`` or ``run``; call what it gives with the record of a
        finished run.
        """


@runtime_checkable
class Listener(Observer, Protocol):
    """An observer that also receives notices: what a user should know while the work goes on."""

    def notice(self, text: str) -> None:
        """One line, such as whom a run waits for."""


class Silent:
    """An observer that does nothing."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Accepts any step and shows nothing."""
        del task, done, total


SILENT = Silent()


def notice(observer: Observer, text: str) -> None:
    """Send `text` to an observer that is a `Listener`; others do not get it."""
    if isinstance(observer, Listener):
        observer.notice(text)


def following(
    observer: Observer, task: str, about: Mapping[str, Setting]
) -> AbstractContextManager[Callable[[Record], None]]:
    """`during` of a `Follower`; for any other observer, a block that reports to nobody."""
    return observer.during(task, about) if isinstance(observer, Follower) else nullcontext(_ignore)


def _ignore(record: Record) -> None:
    del record
