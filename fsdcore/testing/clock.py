"""A clock that a test moves by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fsdcore.clock import Clock


class ManualClock(Clock):
    """Stands still until it is moved; `sleep` moves it at once. All methods may be called from several threads.

    A wait on something else than the clock does not see it move: what waits is woken by what `on_advance` was given.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, then tell all listeners; `ValueError` if they are negative."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds} s")
        with self._lock:
            self._now += seconds
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def on_advance(self, listener: Callable[[], None]) -> None:
        """Call `listener` each time the clock has moved."""
        with self._lock:
            self._listeners.append(listener)
