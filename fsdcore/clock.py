"""Time behind an interface, so that tests need no real waiting.

Nothing in the core reads, spends or waits for time but by a clock that it was handed; that of a run is its backend's.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol


class Condition(Protocol):
    """As `threading.Condition`, with timeouts by a clock. Who holds it may wait for other things by that clock."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of it until it is notified, or `timeout` seconds have passed: then False."""

    def notify_all(self) -> None:
        """Wake all that wait."""


class Thread(Protocol):
    """A thread that runs, as `threading.Thread`."""

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, or until `timeout` seconds have passed."""


class Clock(ABC):
    """Where the core reads and spends time, and how its threads wait for it and for each other.

    Threads that wait are started by their clock, and wait by what it gives them; so a clock of a test can tell when
    all of them wait.
    """

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds."""

    @abstractmethod
    def wall(self) -> float:
        """Seconds since the epoch: comparable between machines, within their clock skew."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""

    @abstractmethod
    def condition(self) -> Condition:
        """A new condition, which is a lock as well."""

    @abstractmethod
    def start(self, work: Callable[[], None], name: str) -> Thread:
        """Start a thread that does `work`, and does not keep the process from ending."""


class SystemClock(Clock):
    """The clock of the machine."""

    def now(self) -> float:
        # Everywhere as fine as that of a profiler, which `time.monotonic` is not.
        return time.perf_counter()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def condition(self) -> Condition:
        return threading.Condition(threading.Lock())

    def start(self, work: Callable[[], None], name: str) -> Thread:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread


SYSTEM_CLOCK = SystemClock()


@dataclass(frozen=True)
class Deadline:
    """A point in time that ends a wait.

    `at` is in monotonic seconds of `clock`.
    """

    at: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """The point `seconds` from now."""
        return cls(clock.now() + seconds, clock)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self.clock.now())

    def passed(self) -> bool:
        return self.remaining() == 0.0

    def sooner(self, seconds: float) -> Deadline:
        """This deadline, or `seconds` from now if that is sooner."""
        return Deadline(min(self.at, self.clock.now() + seconds), self.clock)


class Event:
    """Something that happens once, and that threads wait for by a clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._changed, self._happened = clock, clock.condition(), False

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._happened

    def set(self) -> None:
        """Have it happen."""
        with self._changed:
            self._happened = True
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has happened, or `timeout` seconds have passed: then False."""
        end = None if timeout is None else Deadline.after(timeout, self._clock)
        with self._changed:
            while not (self._happened or (end is not None and end.passed())):
                self._changed.wait(None if end is None else end.remaining())
            return self._happened
