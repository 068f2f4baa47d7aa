"""Workers whose process has a time of its own, and clients of stores whose requests cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from fsd_local import LocalBackend, LocalSettings
from fsd_local.stores import MemoryStore
from fsdcore.client.session import Session
from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.contracts.channel import Address, Slot
from fsdcore.contracts.compute import Invocation
from fsdcore.contracts.limits import ChannelCapabilities, StoreCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import DeadlineError
from fsdcore.messages.frames import DATA
from fsdcore.messages.object_channel import ObjectChannel
from fsdcore.testing import random_inputs, random_network
from fsdcore.testing.clock import VirtualClock
from fsdcore.worker.leases import take_lane
from fsdcore.worker.plan_cache import PlanCache
from fsdcore.worker.worker import run_worker

NETWORK = random_network((12, 16, 16, 10))
INPUTS = random_inputs(9, 12)


class Timed(LocalBackend):
    """Workers get `seconds` of time, and keep their plans."""

    def __init__(self, seconds: float) -> None:
        super().__init__(LocalSettings(lanes=1))
        self.plans = PlanCache(1 << 30)
        self.compute.invoke = self._invoke  # type: ignore[method-assign]
        self._seconds = seconds

    def _invoke(self, invocation: Invocation) -> None:
        end = SYSTEM_CLOCK.now() + self._seconds
        # Where it fails, the client is told through the store.
        try:
            run_worker(self, invocation, end=end, plans=self.plans)
        except DeadlineError:
            return


@pytest.fixture
def timed() -> Iterator[Any]:
    made: list[Timed] = []

    def make(seconds: float) -> Timed:
        made.append(Timed(seconds))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def test_a_worker_whose_time_is_up_says_where(timed: Any) -> None:
    session = Session(timed(0.0), RunSettings(workers=1))
    with pytest.raises(DeadlineError, match="time is up") as caught:
        session.load(NETWORK).run(INPUTS)
    assert (caught.value.rank, caught.value.layer) == (0, 2)


def test_a_wait_ends_with_the_time_of_the_worker(timed: Any) -> None:
    backend = timed(0.2)
    session = Session(backend, RunSettings(workers=2, deadline_seconds=60.0, branching=1))
    invoke = backend.compute.invoke
    backend.compute.invoke = lambda invocation: invoke(invocation) if invocation.rank == 0 else None
    with pytest.raises(DeadlineError) as caught:
        session.load(NETWORK).run(INPUTS)
    assert caught.value.rank == 0
    assert caught.value.layer is not None


def test_a_worker_with_time_enough_is_not_disturbed_and_its_plan_is_read_once(timed: Any) -> None:
    session = Session(timed(600.0), RunSettings(workers=1))
    model = session.load(NETWORK)
    first, second = model.run(INPUTS), model.run(INPUTS)
    assert (first.outputs != second.outputs).nnz == 0
    assert second.record.counters["gets"] < first.record.counters["gets"]


class SlowStore(MemoryStore):
    """Says that its requests take `latency`, and counts them."""

    def __init__(self, latency: float) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self._latency = latency

    @property
    def capabilities(self) -> StoreCapabilities:
        return StoreCapabilities(latency_seconds=self._latency)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.calls["get_range"] += 1
        return super().get_range(key, start, length)


def looks(latency: float, clock: Clock) -> int:
    """How often an object channel asks for an object in the first second of waiting for it."""
    store = SlowStore(latency)
    channel = ObjectChannel(store, Address("0" * 16, 0, 2), longest_pause=0.01)
    channel.expect(Slot(DATA, 0, 2), [1])
    assert channel.receive(Deadline(clock.now() + 1.0, clock)) == []
    return store.calls["get_range"]


def test_the_slower_a_store_the_less_it_is_asked() -> None:
    assert looks(0.05, VirtualClock()) < 30 < looks(0.0, VirtualClock())


def test_channels_of_one_pool_share_their_lanes(timed: Any) -> None:
    """Runs of two kinds of channel over the same queues would take each other's frames."""
    backend = timed(600.0)
    pooled = ChannelCapabilities(
        max_frame_bytes=1 << 18, max_publish_frames=10, max_publish_bytes=1 << 18, lanes=1, lane_pool="pool"
    )
    backend.channel_capabilities = lambda kind: pooled
    session = Session(backend, RunSettings(workers=2, channel="object", run_seconds=0.2))
    model = session.load(NETWORK)
    take_lane(backend.store, "pool", 1, 900.0, Deadline.after(0.0, SYSTEM_CLOCK), print)
    with pytest.raises(DeadlineError, match="all 1 lanes of the pool channel are taken"):
        model.run(INPUTS)
