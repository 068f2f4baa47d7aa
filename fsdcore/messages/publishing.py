"""Publishes that are under way at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fsdcore.clock import Clock, Thread


class Publishing:
    """Makes publishes in up to `most` threads, begun in the order given.

    What one of them raises is told to `failed`, in its thread, and raised by `check` from then on.
    """

    def __init__(self, clock: Clock, most: int, failed: Callable[[BaseException], None]) -> None:
        self._clock, self._most, self._failed = clock, most, failed
        self._changed = clock.condition()
        self._threads: list[Thread] = []
        self._given: deque[Callable[[], None]] = deque()
        self._idle = self._under_way = 0
        self._closed = False
        self._error: BaseException | None = None

    def submit(self, publish: Callable[[], None]) -> None:
        """Have it made as soon as a thread is free."""
        with self._changed:
            self._given.append(publish)
            self._changed.notify_all()
            if self._idle < len(self._given) and len(self._threads) < self._most:
                self._threads.append(self._clock.start(self._work, "fsd-send"))

    def busy(self) -> bool:
        """Whether any is not made yet."""
        return bool(self._given) or self._under_way > 0

    def check(self) -> None:
        """Raise what the first to fail has raised."""
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Wait until all are made; raises as `check`."""
        with self._changed:
            while self.busy():
                self._changed.wait()
        self.check()

    def close(self) -> None:
        """Begin no more; returns once those under way are made."""
        with self._changed:
            self._closed = True
            self._given.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (publish := self._next()) is not None:
            try:
                publish()
            except BaseException as error:  # noqa: BLE001 - raised in the thread that flushes or waits
                self._error = self._error or error
                self._failed(error)
            self._made()

    def _next(self) -> Callable[[], None] | None:
        """What to make now; None if there will be no more."""
        with self._changed:
            self._idle += 1
            while not self._given and not self._closed:
                self._changed.wait()
            self._idle -= 1
            if not self._given:
                return None
            self._under_way += 1
            return self._given.popleft()

    def _made(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()
