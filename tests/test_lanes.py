"""Lanes: held by one run at a time, given on, and never with an id that looks older."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.local.memory_store import MemoryStore
from fsdcore.clock import Deadline
from fsdcore.errors import DeadlineError, WireError
from fsdcore.lanes import Lease, lease_lane
from fsdcore.store import Store
from fsdcore.testing.clock import ManualClock


def lease(store: Store, clock: ManualClock, lanes: int = 1, seconds: float = 60.0, patience: float = 0.0) -> Lease:
    return lease_lane(store, "queue", lanes, seconds, Deadline.after(patience, clock))


def test_each_lane_is_held_by_one_run() -> None:
    store, clock = MemoryStore(), ManualClock()
    leases = [lease(store, clock, lanes=3) for _ in range(3)]
    assert sorted(held.lane for held in leases) == [0, 1, 2]
    assert len({held.run for held in leases}) == 3
    with pytest.raises(DeadlineError, match="all 3 lanes of the queue channel are taken"):
        lease(store, clock, lanes=3)


def test_a_lane_given_back_is_free_and_its_next_run_has_a_larger_id() -> None:
    store, clock = MemoryStore(), ManualClock()
    runs = []
    for _ in range(5):
        held = lease(store, clock)
        runs.append(held.run)
        held.release()
    # The clock stands still, so the ids do not grow by themselves.
    assert runs == sorted(set(runs))
    assert len(store.list("lanes/")) <= 2


def test_a_lane_that_nobody_gave_back_is_free_when_its_time_is_over() -> None:
    store, clock = MemoryStore(), ManualClock()
    lost = lease(store, clock, seconds=60.0)
    clock.advance(59.0)
    with pytest.raises(DeadlineError):
        lease(store, clock)
    clock.advance(1.0)
    assert lease(store, clock).run > lost.run


def test_who_waits_gets_the_lane_as_soon_as_it_is_free() -> None:
    store, clock = MemoryStore(), ManualClock()
    lease(store, clock, seconds=10.0)
    held = lease(store, clock, patience=30.0)
    assert held.lane == 0
    assert 10.0 <= clock.now() < 11.0


def test_of_many_that_try_at_once_one_gets_the_lane() -> None:
    store, clock = MemoryStore(), ManualClock()

    def attempt(_: int) -> bool:
        try:
            lease(store, clock)
        except DeadlineError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(attempt, range(24))).count(True) == 1


def test_a_damaged_lease_is_said_to_be_so() -> None:
    store, clock = MemoryStore(), ManualClock()
    store.put(lease(store, clock).key, b"no lease")
    with pytest.raises(WireError, match="is damaged"):
        lease(store, clock)
