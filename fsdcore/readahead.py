"""Reading ahead of what is used, in a thread: the first item can be used before the last has arrived."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from fsdcore.errors import FsdError

__all__ = ["ReadAhead"]

_T = TypeVar("_T")


class ReadAhead(Generic[_T]):
    """`count` items of `source`, each of which can be asked for at any time and any number of times.

    Asking for one that has not been read yet waits for it, and raises what reading it raised.
    """

    def __init__(self, source: Iterator[_T], count: int) -> None:
        self._source, self._count = source, count
        self._items: list[_T] = []
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="fsd-read-ahead", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> _T:
        if not 0 <= number < self._count:
            raise IndexError(number)
        with self._changed:
            while len(self._items) <= number:
                if self._error is not None:
                    raise self._error
                self._changed.wait()
            return self._items[number]

    def close(self) -> None:
        """Read no more; returns when the thread has ended."""
        self._closed = True
        self._thread.join()

    def _read(self) -> None:
        try:
            for item in self._source:
                with self._changed:
                    self._items.append(item)
                    self._changed.notify_all()
                if self._closed:
                    break
            self._fail(FsdError(f"{self._count} items were to be read, there were {len(self._items)}"))
        except BaseException as error:  # noqa: BLE001 - raised where the item is asked for
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()
