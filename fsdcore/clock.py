"""Time behind an interface, so that tests need no real waiting."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Clock(ABC):
    """Where the core reads and spends time."""

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds."""

    @abstractmethod
    def wall(self) -> float:
        """Seconds since the epoch: comparable between machines, within their clock skew."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""


class SystemClock(Clock):
    """The clock of the machine."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


@dataclass(frozen=True)
class Deadline:
    """A point in time that ends a wait.

    `at` is in monotonic seconds of `clock`.
    """

    at: float
    clock: Clock = SYSTEM_CLOCK

    @classmethod
    def after(cls, seconds: float, clock: Clock = SYSTEM_CLOCK) -> Deadline:
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
