"""A clock of tests, by which a whole run takes no time."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Self

from fsdcore.clock import Clock, Condition, Event, Thread


class _Sleeper:
    """A thread that waits: `gate` opens when it may go on, `woken` says that it is to.

    One that is not `counted` goes on at once: the clock takes it for one that runs, or does not know it.
    """

    __slots__ = ("counted", "gate", "woken")

    def __init__(self, counted: bool = True) -> None:
        self.counted, self.woken = counted, False
        self.gate = threading.Lock()
        self.gate.acquire()


class _Known(threading.local):
    """Whether this thread takes part."""

    takes_part = False


class VirtualClock(Clock):
    """Time that passes only when all wait, and then at once: up to the next moment that one of them waits for.

    The thread that makes it takes part, and so does each that it starts. One of them runs at a time, until it waits by
    this clock; then the one that could have gone on for longest. So what goes by this clock alone goes the same way
    each time, however fast the machine is.

    Other threads may hold and notify its conditions, not wait for its time: nobody knows when they do something else.
    One that takes part and waits for anything but this clock stops the others until it goes on. `sleep` in a test of
    one thread just moves the clock.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        # Held for a moment at a time, by whoever runs. It guards all below, and what the conditions know.
        self.guard = threading.Lock()
        self._known = _Known()
        self._known.takes_part = self._runs = True
        self._ready: deque[_Sleeper] = deque()
        self._due: list[tuple[float, int, _Sleeper]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds} s")
        with self.guard:
            sleeper = self.asleep(seconds)
        sleeper.gate.acquire()

    def condition(self) -> Condition:
        return _VirtualCondition(self)

    def start(self, work: Callable[[], None], name: str) -> Thread:
        return _VirtualThread(self, work, name)

    def takes_part(self) -> bool:
        """Whether this thread does."""
        return self._known.takes_part

    def asleep(self, seconds: float | None = None) -> _Sleeper:
        """What this thread is to wait at, once it has left the guard; others run meanwhile."""
        if not self.takes_part():
            raise RuntimeError("a thread waits by a virtual clock that has not started it")
        if seconds is None and not self._ready and not self._any_due():
            raise RuntimeError("all threads wait for each other, and none for a time")
        sleeper = _Sleeper()
        if seconds is not None:
            heapq.heappush(self._due, (self._now + seconds, next(self._order), sleeper))
        self._runs = False
        self.go_on()
        return sleeper

    def _any_due(self) -> bool:
        while self._due and self._due[0][-1].woken:
            heapq.heappop(self._due)
        return bool(self._due)

    def go_on(self) -> None:
        """Let the next thread run, unless one does."""
        while not self._runs and (self._ready or self._any_due()):
            if self._ready:
                self._runs = True
                self._ready.popleft().gate.release()
            else:
                due, _, sleeper = heapq.heappop(self._due)
                self._now = max(self._now, due)
                self.wake(sleeper)

    def wake(self, sleeper: _Sleeper) -> None:
        """Have it go on in its turn."""
        if sleeper.woken:
            return
        sleeper.woken = True
        if sleeper.counted:
            self._ready.append(sleeper)
        else:
            sleeper.gate.release()

    def begin(self, sleeper: _Sleeper) -> None:
        """This thread takes part from its turn on."""
        self._known.takes_part = True
        sleeper.gate.acquire()

    def end(self) -> None:
        """This thread takes part no longer."""
        with self.guard:
            self._runs = False
            self.go_on()


class _VirtualCondition:
    """Its lock may be held by a thread that waits for something else: who wants it then waits by the clock as well."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._held = self._held_by_other = False
        self._entering: deque[_Sleeper] = deque()
        self._waiting: list[_Sleeper] = []

    def __enter__(self) -> Self:
        with self._clock.guard:
            sleeper = self._asleep() if self._held else None
            if sleeper is not None:
                self._entering.append(sleeper)
            self._held = True
        if sleeper is not None:
            sleeper.gate.acquire()
        self._held_by_other = not self._clock.takes_part()
        return self

    def _asleep(self) -> _Sleeper:
        """What to wait at until the lock is free; a thread that the clock does not know lets go of it soon."""
        known = self._clock.takes_part() and not self._held_by_other
        return self._clock.asleep() if known else _Sleeper(counted=False)

    def __exit__(self, *_: object) -> None:
        with self._clock.guard:
            self._let_go()
            self._clock.go_on()

    def _let_go(self) -> None:
        if self._entering:
            self._clock.wake(self._entering.popleft())
        else:
            self._held = False

    def wait(self, timeout: float | None = None) -> bool:
        with self._clock.guard:
            self._let_go()
            sleeper = self._clock.asleep(timeout)
            self._waiting.append(sleeper)
        sleeper.gate.acquire()
        self.__enter__()
        notified = sleeper not in self._waiting
        if not notified:
            self._waiting.remove(sleeper)
        return notified

    def notify_all(self) -> None:
        with self._clock.guard:
            for sleeper in self._waiting:
                self._clock.wake(sleeper)
            self._waiting.clear()
            self._clock.go_on()


class _VirtualThread:
    def __init__(self, clock: VirtualClock, work: Callable[[], None], name: str) -> None:
        self._clock, self._work, self._ended = clock, work, Event(clock)
        self._begins = _Sleeper()
        with clock.guard:
            clock.wake(self._begins)
        threading.Thread(target=self._run, name=name, daemon=True).start()
        with clock.guard:
            clock.go_on()

    def _run(self) -> None:
        self._clock.begin(self._begins)
        try:
            self._work()
        finally:
            self._ended.set()
            self._clock.end()

    def is_alive(self) -> bool:
        return not self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)
