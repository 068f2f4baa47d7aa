"""Reading ahead in a thread: the first item can be used before the last has arrived."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from fsdcore.clock import Clock
from fsdcore.errors import FsdError
from fsdcore.turns import standing_aside, turns_of_this_thread

_T = TypeVar("_T")

# Changing between reading and what else the process does, item by item, would double what reading takes.
_TURN_SECONDS = 0.005


class ReadAhead(Generic[_T]):
    """`count` items of `source`, each of which can be asked for at any time and any number of times; waits by `clock`.

    Asking for an item that has not been read yet blocks until it has, and raises what reading it raised.
    """

    def __init__(self, source: Iterator[_T], count: int, clock: Clock) -> None:
        self._source, self._count, self._clock = source, count, clock
        self._items: list[_T] = []
        self._error: BaseException | None = None
        self._closed = False
        self._changed = clock.condition()
        self._turn = turns_of_this_thread()
        self._thread = clock.start(self._read, "fsd-read-ahead")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> _T:
        if not 0 <= number < self._count:
            raise IndexError(number)
        if number < len(self._items):
            return self._items[number]
        with standing_aside(), self._changed:
            while len(self._items) <= number:
                if self._error is not None:
                    raise self._error
                self._changed.wait()
            return self._items[number]

    def close(self) -> None:
        """Stop reading; returns when the thread has ended."""
        self._closed = True
        with standing_aside():
            self._thread.join()

    def _read(self) -> None:
        try:
            while not self._closed and self._read_some():
                pass
            self._fail(FsdError(f"{self._count} items were to be read, there were {len(self._items)}"))
        except BaseException as error:  # noqa: BLE001 - raised where the item is asked for
            self._fail(error)

    def _read_some(self) -> bool:
        """Read what one turn has time for; False if there is no more."""
        with self._turn():
            end = self._clock.now() + _TURN_SECONDS
            while not self._closed and self._clock.now() < end:
                try:
                    item = next(self._source)
                except StopIteration:
                    return False
                with self._changed:
                    self._items.append(item)
                    self._changed.notify_all()
        return True

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
