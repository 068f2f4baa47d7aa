"""Faults to run a backend under: each is a small value, `FaultyBackend` applies them.

A run under any of them must give the exact result, or end within its deadline with one error that names rank and layer.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fsdcore.clock import Clock, Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received, Slot
from fsdcore.contracts.compute import Compute
from fsdcore.contracts.limits import ChannelCapabilities, StoreCapabilities
from fsdcore.contracts.store import Store
from fsdcore.errors import ChannelError, StoreError


class WorkerCrash(BaseException):
    """A worker dies without a word, as when its function is killed."""


class Fault:
    """Does something to the frames that an endpoint receives, or to its calls.

    Each endpoint has its own state, but `FailOnce` and `CrashWorker` count calls over all endpoints of a backend: what
    is to happen once must not happen again to the next run, or to the client as it tells of the failure.
    """

    def endpoint(self, rank: int, clock: Clock) -> EndpointFault:
        """What the fault does at `rank` of a backend that goes by `clock`."""
        del rank, clock
        return EndpointFault()


class EndpointFault:
    """Does nothing: the base of what a fault does at one endpoint."""

    @property
    def holds(self) -> bool:
        """Whether frames are held back at the moment."""
        return False

    def before(self, verb: str) -> None:
        """Called before each ``send`` and ``receive``."""

    def received(self, frames: list[Received]) -> list[Received]:
        """What to hand on of what has come."""
        return frames

    def send(self, publish: Callable[[Sequence[Outgoing]], None], frames: Sequence[Outgoing]) -> None:
        """Have `publish` send the frames."""
        publish(frames)


@dataclass(frozen=True)
class Duplicate(Fault):
    """Every `every`-th frame comes twice."""

    every: int = 3

    def endpoint(self, rank: int, clock: Clock) -> EndpointFault:
        return _Each(self.every, lambda frame: [frame, frame])


@dataclass(frozen=True)
class Reorder(Fault):
    """Frames of one receive come in another order, and the last waits for the next receive."""

    seed: int = 0

    def endpoint(self, rank: int, clock: Clock) -> EndpointFault:
        return _Reordered(random.Random(f"{self.seed} {rank}"))


@dataclass(frozen=True)
class Delay(Fault):
    """Every `every`-th frame comes only after `receives` further receives."""

    every: int = 3
    receives: int = 2

    def endpoint(self, rank: int, clock: Clock) -> EndpointFault:
        return _Delayed(self.every, self.receives)


@dataclass(frozen=True)
class DropUntilRedelivery(Fault):
    """Every `every`-th frame is lost the first time, unacknowledged, and so must come again.

    A channel that does not redeliver has nothing to lose; there the frame is late instead.
    """

    every: int = 5

    def endpoint(self, rank: int, clock: Clock) -> EndpointFault:
        return _Delayed(self.every, 1)


@dataclass(frozen=True)
class FailOnce(Fault):
    """The `nth` call of `verb` fails, at `rank` or (None) at the first that makes it.

    Verbs ``send`` and ``receive`` fail with `ChannelError`; ``put``, ``get``, ``get_range`` and ``list`` of the store
    with `StoreError`, whichever rank; `under` counts only those of keys or prefixes that begin so.
    """

    verb: str
    rank: int | None = None
    nth: int = 1
    under: str = ""

    def endpoint(self, rank: int, clock: Clock) -> EndpointFault:
        return _Failing(self.verb, self.nth) if self.rank in (None, rank) else EndpointFault()


@dataclass(frozen=True)
class CrashWorker(Fault):
    """The worker of `rank` dies without a word at its `nth` send."""

    rank: int
    nth: int = 1

    def endpoint(self, rank: int, clock: Clock) -> EndpointFault:
        return _Failing("send", self.nth, WorkerCrash) if rank == self.rank else EndpointFault()


@dataclass(frozen=True)
class Latency(Fault):
    """Every frame is on its way for `seconds` before the service has it; the sender does not wait."""

    seconds: float

    def endpoint(self, rank: int, clock: Clock) -> EndpointFault:
        return _Underway(self.seconds, clock)


class _Underway(EndpointFault):
    """Sends in a thread of its own, in the order given, each publish when its time has come.

    The thread ends when nothing is on its way.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._seconds, self._clock = seconds, clock
        self._queue: deque[tuple[float, Callable[[], None]]] = deque()
        self._lock = threading.Lock()
        self._runs = False

    def send(self, publish: Callable[[Sequence[Outgoing]], None], frames: Sequence[Outgoing]) -> None:
        with self._lock:
            self._queue.append((self._clock.now() + self._seconds, lambda: publish(frames)))
            starts, self._runs = not self._runs, True
        if starts:
            self._clock.start(self._deliver, "fsd-latency")

    def _deliver(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._runs = False
                    return
                due, publish = self._queue.popleft()
            self._clock.sleep(max(0.0, due - self._clock.now()))
            # A service that refuses a frame on its way says so to nobody.
            with suppress(ChannelError, StoreError):
                publish()


class _Each(EndpointFault):
    def __init__(self, every: int, change: Callable[[Received], list[Received]]) -> None:
        self._every, self._change, self._seen = every, change, 0

    def received(self, frames: list[Received]) -> list[Received]:
        result: list[Received] = []
        for frame in frames:
            self._seen += 1
            result += self._change(frame) if self._seen % self._every == 0 else [frame]
        return result


class _Reordered(EndpointFault):
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._held: list[Received] = []

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def received(self, frames: list[Received]) -> list[Received]:
        self._rng.shuffle(frames)
        if len(frames) > 1:
            self._held, frames = [frames[-1]], frames[:-1] + self._held
            return frames
        held, self._held = self._held, []
        return frames + held


class _Delayed(EndpointFault):
    def __init__(self, every: int, receives: int) -> None:
        self._every, self._receives = every, receives
        self._held: list[tuple[int, Received]] = []
        self._seen = self._turn = 0

    def received(self, frames: list[Received]) -> list[Received]:
        self._turn += 1
        due = [frame for turn, frame in self._held if turn <= self._turn]
        self._held = [(turn, frame) for turn, frame in self._held if turn > self._turn]
        for frame in frames:
            self._seen += 1
            if self._seen % self._every == 0:
                self._held.append((self._turn + self._receives, frame))
            else:
                due.append(frame)
        return due

    @property
    def holds(self) -> bool:
        return bool(self._held)


class _Failing(EndpointFault):
    def __init__(self, verb: str, nth: int, kind: type[BaseException] = ChannelError) -> None:
        self._verb, self._nth, self._kind, self._calls = verb, nth, kind, 0
        self._lock = threading.Lock()

    def before(self, verb: str) -> None:
        if verb != self._verb:
            return
        with self._lock:
            self._calls += 1
            due = self._calls == self._nth
        if due:
            raise self._kind(f"made to fail: {verb}")


class _Dropping(EndpointFault):
    """Loses each `every`-th frame once; its redelivery has the same bytes and passes."""

    def __init__(self, every: int) -> None:
        self._every, self._seen = every, 0
        self._lost: set[bytes] = set()

    def received(self, frames: list[Received]) -> list[Received]:
        return [frame for frame in frames if self._passes(frame)]

    def _passes(self, frame: Received) -> bool:
        if frame.data in self._lost:
            return True
        self._seen += 1
        if self._seen % self._every:
            return True
        self._lost.add(frame.data)
        return False


class _FaultyChannel(Channel):
    # While a frame is held back, a receive must not sleep till the deadline: nothing else may come.
    _SHORT = 0.01

    def __init__(self, inner: Channel, faults: Sequence[EndpointFault]) -> None:
        self._inner, self._faults = inner, faults

    @property
    def capabilities(self) -> ChannelCapabilities:
        return self._inner.capabilities

    def send(self, frames: Sequence[Outgoing]) -> None:
        for fault in self._faults:
            fault.before("send")
        publish = self._inner.send
        for fault in self._faults:
            publish = partial(fault.send, publish)
        publish(frames)

    def receive(self, deadline: Deadline) -> list[Received]:
        for fault in self._faults:
            fault.before("receive")
        holding = any(fault.holds for fault in self._faults)
        frames = self._inner.receive(deadline.sooner(self._SHORT) if holding else deadline)
        for fault in self._faults:
            frames = fault.received(frames)
        return frames

    def acknowledge(self, received: Sequence[Received]) -> None:
        self._inner.acknowledge(received)

    def release(self, received: Sequence[Received]) -> None:
        self._inner.release(received)

    def expect(self, slot: Slot, sources: Sequence[int]) -> None:
        self._inner.expect(slot, sources)

    def observe(self, count: Callable[[str], None]) -> None:
        self._inner.observe(count)

    def purge(self) -> int:
        return self._inner.purge()

    def close(self) -> None:
        self._inner.close()


class _FaultyStore(Store):
    def __init__(self, inner: Store, faults: Iterable[FailOnce]) -> None:
        self._inner, self._faults = inner, tuple(faults)
        self._calls: Counter[FailOnce] = Counter()
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> StoreCapabilities:
        return self._inner.capabilities

    def _before(self, verb: str, key: str) -> None:
        with self._lock:
            meant = [fault for fault in self._faults if fault.verb == verb and key.startswith(fault.under)]
            self._calls.update(meant)
            if any(fault.nth == self._calls[fault] for fault in meant):
                raise StoreError(f"made to fail: {verb}")

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        self._before("put", key)
        self._inner.put(key, data, if_absent)

    def get(self, key: str) -> bytes:
        self._before("get", key)
        return self._inner.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self._before("get_range", key)
        return self._inner.get_range(key, start, length)

    def list(self, prefix: str) -> list[str]:
        self._before("list", prefix)
        return self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        self._inner.delete(keys)


class FaultyBackend(Backend):
    """`inner`, with `faults` on every worker's channel and on the store.

    The compute of `inner` must have an attribute `worker_backend`, the backend its workers get.
    """

    name = "faulty"
    summary = "another backend, with faults"

    def __init__(self, inner: Backend, *faults: Fault) -> None:
        super().__init__(clock=inner.clock)
        self._inner, self._faults = inner, faults
        self.channels = inner.channels  # type: ignore[misc]
        self._store = _FaultyStore(inner.store, [fault for fault in faults if isinstance(fault, FailOnce)])
        self._counting = {
            number: fault.endpoint(fault.rank or 0, self.clock)
            for number, fault in enumerate(faults)
            if isinstance(fault, FailOnce | CrashWorker)
        }
        compute: Any = inner.compute
        compute.worker_backend = self

    @property
    def store(self) -> Store:
        return self._store

    @property
    def compute(self) -> Compute:
        return self._inner.compute

    def open_channel(self, kind: str, address: Address) -> Channel:
        channel = self._inner.open_channel(kind, address)
        return _FaultyChannel(channel, [self._at(number, channel, address.rank) for number in range(len(self._faults))])

    def _at(self, number: int, channel: Channel, rank: int) -> EndpointFault:
        fault = self._faults[number]
        if isinstance(fault, FailOnce | CrashWorker):
            return self._counting[number] if fault.rank in (None, rank) else EndpointFault()
        if isinstance(fault, DropUntilRedelivery) and channel.capabilities.redelivers:
            return _Dropping(fault.every)
        return fault.endpoint(rank, self.clock)

    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        return self._inner.channel_capabilities(kind)

    def close(self) -> None:
        self._inner.close()
