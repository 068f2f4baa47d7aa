"""Turns of threads that would only fight for the interpreter.

Workers that are threads of one process cannot run Python side by side. Left alone they hand its lock to each other
wherever one lets go of it for a moment, which costs more than all that they do. So they take turns: one goes on until
it has to wait, then the one that has waited longest, by when most of what it waits for is there.

A turn belongs to a thread. Code that waits, or works without the interpreter for long, stands aside meanwhile; in a
thread that takes no turns that is nothing. Turns are a courtesy: nothing depends on them but speed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from fsdcore.clock import Clock, Event

# A thread goes on without a turn after so many seconds, or one that hangs would keep the others from their deadlines.
_LONGEST_SECONDS = 1.0


class _Mine(threading.local):
    """The turns that this thread takes, whether it has one now, and how often it stands aside, one within another."""

    turns: Turns | None = None
    has: bool = False
    aside: int = 0


_MINE = _Mine()


class Turns:
    """Lets one thread at a time have its turn: first come, first served."""

    def __init__(self, clock: Clock, longest_seconds: float = _LONGEST_SECONDS) -> None:
        self._clock, self._longest_seconds = clock, longest_seconds
        self._lock = threading.Lock()
        self._taken = False
        # For each thread that waits: that its turn has come.
        self._waiting: deque[Event] = deque()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have a turn for the block, but where it stands aside."""
        _MINE.turns = self
        self.take()
        try:
            yield
        finally:
            self.give()
            _MINE.turns = None

    def take(self) -> None:
        """Wait for this thread's turn."""
        with self._lock:
            _MINE.has = not self._taken
            if _MINE.has:
                self._taken = True
                return
            come = Event(self._clock)
            self._waiting.append(come)
        _MINE.has = come.wait(self._longest_seconds) or not self._withdraw(come)

    def _withdraw(self, come: Event) -> bool:
        """Wait no longer; False if the turn came meanwhile."""
        with self._lock:
            if come not in self._waiting:
                return False
            self._waiting.remove(come)
            return True

    def give(self) -> None:
        """End this thread's turn, if it has one."""
        if not _MINE.has:
            return
        _MINE.has = False
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


class _Aside:
    """Stands aside within a block."""

    __slots__ = ("_turns",)

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def __enter__(self) -> None:
        _MINE.aside += 1
        if _MINE.aside == 1:
            self._turns.give()

    def __exit__(self, *_: object) -> None:
        _MINE.aside -= 1
        if _MINE.aside == 0:
            self._turns.take()


_NOTHING = nullcontext()


def standing_aside(worth: bool = True) -> AbstractContextManager[None]:
    """Let the others have their turns while the block waits, if that is `worth` it."""
    turns = _MINE.turns
    return _Aside(turns) if worth and turns is not None else _NOTHING


def turns_of_this_thread() -> Callable[[], AbstractContextManager[None]]:
    """How a thread that works for this one takes its turns."""
    turns = _MINE.turns
    return turns.taken if turns is not None else nullcontext
