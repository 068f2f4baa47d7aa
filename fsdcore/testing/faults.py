"""A backend that goes wrong as it is told to, by the faults of `fsdcore.faults`.

A run under any of them must give the exact result, or end within its deadline with one error that names rank and layer.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from fsdcore.clock import Clock, Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received, Slot
from fsdcore.contracts.compute import Compute
from fsdcore.contracts.limits import ChannelCapabilities, StoreCapabilities
from fsdcore.contracts.store import Store
from fsdcore.errors import ChannelError, StoreError
from fsdcore.faults import Crash, Delay, Drop, Duplicate, Fault, Faults, Occurrences, Refuse, Reorder


class WorkerCrash(BaseException):
    """A worker dies without a word, as when its function is killed."""


class _Frames:
    """What a fault does to the frames of one endpoint; here nothing."""

    @property
    def holds(self) -> bool:
        """Whether frames are held back at the moment."""
        return False

    def received(self, frames: list[Received]) -> list[Received]:
        """What to hand on of what has come."""
        return frames

    def send(self, publish: Callable[[Sequence[Outgoing]], None], frames: Sequence[Outgoing]) -> None:
        """Have `publish` send the frames."""
        publish(frames)


def _frames(fault: Fault, rank: int, redelivers: bool, clock: Clock) -> _Frames:
    """What a fault does at `rank`, which counts and draws for itself."""
    late_on_the_way = isinstance(fault, Delay) and fault.seconds > 0
    if not fault.means("send" if late_on_the_way else "receive", by=rank):
        return _Frames()
    occurrences = Occurrences(fault, rank)
    if isinstance(fault, Delay):
        return (
            _Underway(occurrences, fault.seconds, clock) if late_on_the_way else _Delayed(occurrences, fault.receives)
        )
    if isinstance(fault, Drop):
        # A channel that does not redeliver has nothing to lose; there the frame is late instead.
        return _Dropping(occurrences) if redelivers else _Delayed(occurrences, 1)
    if isinstance(fault, Reorder):
        return _Reordered(random.Random(f"{fault.seed} {rank}"))
    return _Doubled(occurrences) if isinstance(fault, Duplicate) else _Frames()


class _Underway(_Frames):
    """Sends in a thread of its own, in the order given, each publish when its time has come.

    The thread ends when nothing is on its way.
    """

    def __init__(self, occurrences: Occurrences, seconds: float, clock: Clock) -> None:
        self._occurrences, self._seconds, self._clock = occurrences, seconds, clock
        self._queue: deque[tuple[float, Callable[[], None]]] = deque()
        self._lock = threading.Lock()
        self._runs = False

    def send(self, publish: Callable[[Sequence[Outgoing]], None], frames: Sequence[Outgoing]) -> None:
        if not self._occurrences.due():
            publish(frames)
            return
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


class _Doubled(_Frames):
    def __init__(self, occurrences: Occurrences) -> None:
        self._occurrences = occurrences

    def received(self, frames: list[Received]) -> list[Received]:
        return [frame for frame in frames for _ in range(2 if self._occurrences.due() else 1)]


class _Reordered(_Frames):
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


class _Delayed(_Frames):
    def __init__(self, occurrences: Occurrences, receives: int) -> None:
        self._occurrences, self._receives = occurrences, receives
        self._held: list[tuple[int, Received]] = []
        self._turn = 0

    def received(self, frames: list[Received]) -> list[Received]:
        self._turn += 1
        due = [frame for turn, frame in self._held if turn <= self._turn]
        self._held = [(turn, frame) for turn, frame in self._held if turn > self._turn]
        for frame in frames:
            if self._occurrences.due():
                self._held.append((self._turn + self._receives, frame))
            else:
                due.append(frame)
        return due

    @property
    def holds(self) -> bool:
        return bool(self._held)


class _Dropping(_Frames):
    """Loses a frame once, unacknowledged; its redelivery has the same bytes and passes."""

    def __init__(self, occurrences: Occurrences) -> None:
        self._occurrences = occurrences
        self._lost: set[bytes] = set()

    def received(self, frames: list[Received]) -> list[Received]:
        return [frame for frame in frames if self._passes(frame)]

    def _passes(self, frame: Received) -> bool:
        if frame.data in self._lost or not self._occurrences.due():
            return True
        self._lost.add(frame.data)
        return False


class _FaultyChannel(Channel):
    # While a frame is held back, a receive must not sleep till the deadline: nothing else may come.
    _SHORT = 0.01

    def __init__(self, inner: Channel, before: Callable[[str], None], faults: Sequence[_Frames]) -> None:
        self._inner, self._before, self._faults = inner, before, faults

    @property
    def capabilities(self) -> ChannelCapabilities:
        return self._inner.capabilities

    def send(self, frames: Sequence[Outgoing]) -> None:
        self._before("send")
        publish = self._inner.send
        for fault in self._faults:
            publish = partial(fault.send, publish)
        publish(frames)

    def receive(self, deadline: Deadline) -> list[Received]:
        self._before("receive")
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
    def __init__(self, inner: Store, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    @property
    def capabilities(self) -> StoreCapabilities:
        return self._inner.capabilities

    def _before(self, verb: str, key: str) -> None:
        if self._faults.meet(Refuse, verb, key):
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

    Calls are ``send`` and ``receive`` of channels, ``put``, ``get``, ``get_range`` and ``list`` of the store. `Refuse`
    fails any of them with `ChannelError` or `StoreError`, `Crash` ends the worker at a call of its channel; both count
    over all workers, so that what is to happen once does not happen again to the next run, or to the client as it tells
    of the failure. The other faults are of the frames that an endpoint receives, and `Delay` with `seconds` of those it
    sends: they are on their way for so long, and the sender does not wait.

    The compute of `inner` must have an attribute `worker_backend`, the backend its workers get.
    """

    name = "faulty"
    summary = "another backend, with faults"

    def __init__(self, inner: Backend, *faults: Fault) -> None:
        super().__init__(clock=inner.clock)
        self._inner, self._of_frames = inner, faults
        self._faults = Faults(Crash, Delay, Drop, Duplicate, Refuse, Reorder)
        self._faults.set(*faults)
        self.channels = inner.channels  # type: ignore[misc]
        self._store = _FaultyStore(inner.store, self._faults)
        compute: Any = inner.compute
        compute.worker_backend = self

    @property
    def store(self) -> Store:
        return self._store

    @property
    def compute(self) -> Compute:
        return self._inner.compute

    def open_channel(self, kind: str, address: Address) -> Channel:
        channel, rank = self._inner.open_channel(kind, address), address.rank
        redelivers = channel.capabilities.redelivers
        frames = [_frames(fault, rank, redelivers, self.clock) for fault in self._of_frames]
        return _FaultyChannel(channel, partial(self._before, rank), frames)

    def _before(self, rank: int, verb: str) -> None:
        """What happens as a worker calls its channel."""
        if self._faults.meet(Crash, verb, by=rank):
            raise WorkerCrash(f"made to fail: {verb}")
        if self._faults.meet(Refuse, verb, by=rank):
            raise ChannelError(f"made to fail: {verb}")

    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        return self._inner.channel_capabilities(kind)

    def close(self) -> None:
        self._inner.close()
