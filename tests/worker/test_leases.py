"""Leases: kept alive by a holder, noticed by workers, swept when the holder is dead; lanes: one run at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import pytest

from fsd_local.stores import MemoryStore
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.store import Store
from fsdcore.errors import AbortedError, DeadlineError, RunError, StoreError, WireError
from fsdcore.testing.clock import VirtualClock
from fsdcore.worker.leases import (
    BEAT_SECONDS,
    LEASE_SECONDS,
    LEASES,
    Heartbeat,
    Lease,
    Watch,
    remove_dead,
    take_lane,
    take_lease,
)


def lane(
    store: Store, clock: VirtualClock, lanes: int = 1, patience: float = 0.0, told: list[str] | None = None
) -> Lease:
    said = told if told is not None else []
    return take_lane(store, "queue", lanes, 900.0, Deadline.after(patience, clock), said.append)


def _look_after(clock: VirtualClock, watch: Watch) -> None:
    clock.sleep(watch.interval)
    watch.check()


def _until_it_raises(step: Callable[[], object]) -> None:
    while True:
        step()


def left(store: Store, run: str) -> list[str]:
    return store.list(f"runs/{run}/")


def test_each_lane_is_held_by_one_run() -> None:
    store, clock = MemoryStore(), VirtualClock()
    leases = [lane(store, clock, lanes=3) for _ in range(3)]
    assert sorted(held.lane or 0 for held in leases) == [0, 1, 2]
    assert len({held.run for held in leases}) == 3
    with pytest.raises(DeadlineError, match="all 3 lanes of the queue channel are taken"):
        lane(store, clock, lanes=3)


def test_a_lane_given_back_is_free_and_its_next_run_has_a_larger_id() -> None:
    store, clock = MemoryStore(), VirtualClock()
    runs = []
    for _ in range(5):
        held = lane(store, clock)
        runs.append(held.run)
        held.release()
        remove_dead(store, "", clock)
    # The clock stands still, so the ids do not grow by themselves.
    assert runs == sorted(set(runs))
    assert len(store.list(LEASES)) == 1


def test_a_lane_whose_holder_is_dead_is_free_when_its_lease_is_over() -> None:
    store, clock = MemoryStore(), VirtualClock()
    lost = lane(store, clock)
    clock.sleep(LEASE_SECONDS - 1.0)
    with pytest.raises(DeadlineError):
        lane(store, clock)
    clock.sleep(1.0)
    assert lane(store, clock).run > lost.run


def test_a_lane_whose_holder_is_alive_stays_taken() -> None:
    store, clock = MemoryStore(), VirtualClock()
    held = lane(store, clock)
    for _ in range(20):
        clock.sleep(BEAT_SECONDS)
        held.beat()
    with pytest.raises(DeadlineError):
        lane(store, clock)


def test_a_dead_holder_whose_clock_was_ahead_is_seen_by_its_silence() -> None:
    store, clock = MemoryStore(), VirtualClock()
    ahead = VirtualClock(10_000.0)
    take_lane(store, "queue", 1, 900.0, Deadline.after(0.0, ahead), lambda _: None)
    told: list[str] = []
    lane(store, clock, patience=60.0, told=told)
    assert LEASE_SECONDS <= clock.now() <= LEASE_SECONDS + 2.0
    assert "its clock is 10000 s ahead of this one" in told[0]


def test_a_lane_is_free_as_soon_as_its_run_has_ended() -> None:
    store, clock = MemoryStore(), VirtualClock()
    held = lane(store, clock)
    store.put(f"runs/{held.run}/end/done", b"")
    assert lane(store, clock).run > held.run
    # Its client may be bringing in the outputs still.
    remove_dead(store, "", clock)
    assert left(store, held.run)
    clock.sleep(LEASE_SECONDS)
    remove_dead(store, "", clock)
    assert not left(store, held.run)


def test_who_waits_is_told_for_whom_at_once_and_once() -> None:
    store, clock = MemoryStore(), VirtualClock()
    held = lane(store, clock)
    told: list[str] = []
    assert lane(store, clock, patience=60.0, told=told).lane == 0
    assert LEASE_SECONDS <= clock.now() < LEASE_SECONDS + 2.0
    (line,) = told
    assert f"run {held.run} has it since" in line
    assert "at most" in line


def test_of_many_that_try_at_once_one_gets_the_lane() -> None:
    store, clock = MemoryStore(), VirtualClock()

    def attempt(_: int) -> bool:
        try:
            lane(store, clock)
        except DeadlineError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(attempt, range(24))).count(True) == 1


def test_a_damaged_lease_is_said_to_be_so() -> None:
    store, clock = MemoryStore(), VirtualClock()
    store.put(lane(store, clock).key, b"no lease")
    with pytest.raises(WireError, match="is damaged"):
        lane(store, clock)


def test_what_a_dead_run_left_is_removed_by_the_next_and_what_a_live_one_has_is_not() -> None:
    store, clock = MemoryStore(), VirtualClock()
    dead, dead_lane = take_lease(store, 900.0, clock), lane(store, clock)
    clock.sleep(LEASE_SECONDS)
    alive, mine = take_lease(store, 900.0, clock), take_lease(store, 900.0, clock)
    for lease in (dead, dead_lane, alive, mine):
        store.put(f"runs/{lease.run}/inputs/0", b"")
    remove_dead(store, mine.run, clock)
    assert [bool(left(store, lease.run)) for lease in (dead, dead_lane, alive, mine)] == [False, False, True, True]
    assert store.list(f"{LEASES}runs/") == sorted([alive.key, mine.key])


def test_what_an_ended_run_could_not_remove_is_removed_by_the_next() -> None:
    store, clock = MemoryStore(), VirtualClock()
    lease = lane(store, clock)
    store.put(f"runs/{lease.run}/inputs/0", b"")
    lease.end()
    remove_dead(store, "", clock)
    assert not left(store, lease.run)
    assert lane(store, clock).run > lease.run


def test_nothing_is_left_of_a_lease_without_a_lane() -> None:
    store = MemoryStore()
    take_lease(store, 900.0, SYSTEM_CLOCK).release()
    assert store.list("") == []


def test_a_beat_does_not_bring_back_a_run_that_is_over() -> None:
    store, clock = MemoryStore(), VirtualClock()
    for end in (Lease.end, Lease.release):
        lease = take_lease(store, 900.0, clock)
        watch = Watch(store, lease.key, clock)
        assert not watch.is_over()
        end(lease)
        lease.beat()
        assert watch.is_over()


def test_a_worker_ends_when_its_run_is_over() -> None:
    store, clock = MemoryStore(), VirtualClock()
    lease = take_lease(store, 900.0, clock)
    watch = Watch(store, lease.key, clock)
    watch.check()
    lease.end()
    clock.sleep(watch.interval)
    with pytest.raises(AbortedError, match="stopped"):
        watch.check()


def test_a_worker_ends_before_anybody_else_may_take_the_lane_of_a_dead_client() -> None:
    store, clock = MemoryStore(), VirtualClock()
    lease = lane(store, clock)
    watch = Watch(store, lease.key, clock)
    with pytest.raises(RunError, match="has not renewed its lease"):
        _until_it_raises(partial(_look_after, clock, watch))
    assert clock.now() < LEASE_SECONDS - BEAT_SECONDS


def test_a_worker_goes_on_while_the_client_lives_whatever_the_clocks_say() -> None:
    store, clock = MemoryStore(), VirtualClock()
    lease = take_lease(store, 900.0, VirtualClock(5_000.0))
    watch = Watch(store, lease.key, clock)
    for _ in range(50):
        clock.sleep(BEAT_SECONDS)
        lease.clock.sleep(BEAT_SECONDS)
        lease.beat()
        watch.check()


class Refusing(MemoryStore):
    """A store that refuses to be asked or written while `refuses`."""

    refuses = False

    def get(self, key: str) -> bytes:
        if self.refuses:
            raise StoreError("not now")
        return super().get(key)

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        if self.refuses:
            raise StoreError("not now")
        super().put(key, data, if_absent)


def test_a_store_that_refuses_a_look_or_a_beat_ends_nothing() -> None:
    store, clock = Refusing(), VirtualClock()
    watch = Watch(store, take_lease(store, 900.0, clock).key, clock)
    store.refuses = True
    clock.sleep(watch.interval)
    watch.check()


def test_a_run_without_a_lease_is_watched_by_nobody() -> None:
    clock = VirtualClock()
    watch = Watch(MemoryStore(), "", clock)
    clock.sleep(1e6)
    watch.check()
    assert not watch.is_over()


def test_a_heartbeat_beats_and_says_when_that_came_too_late() -> None:
    store, clock = Refusing(), VirtualClock()
    lease = take_lease(store, 900.0, clock)
    with Heartbeat(lease) as heartbeat:
        clock.sleep(10 * LEASE_SECONDS)
        heartbeat.check()
        assert clock.now() < msgspec.json.decode(store.get(lease.key))["expires"]
        store.refuses = True
        clock.sleep(LEASE_SECONDS - BEAT_SECONDS)
        heartbeat.check()
        clock.sleep(2 * BEAT_SECONDS)
        with pytest.raises(RunError, match="could not be renewed"):
            heartbeat.check()


def test_whatever_ends_a_heartbeat_is_told_to_its_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock = MemoryStore(), VirtualClock()
    lease = take_lease(store, 900.0, clock)

    def broken(*given: Any) -> None:
        raise KeyError("a stranger's store")

    monkeypatch.setattr(store, "put", broken)
    with Heartbeat(lease) as heartbeat:
        clock.sleep(2 * BEAT_SECONDS)
        with pytest.raises(KeyError, match="a stranger's store"):
            heartbeat.check()


def test_objects_beside_the_leases_are_left_alone() -> None:
    store, clock = MemoryStore(), VirtualClock()
    others = [f"{LEASES}readme", f"{LEASES}lanes/queue/readme", f"{LEASES}lanes/queue/0/x/y", f"{LEASES}lanes/x/1"]
    for key in others:
        store.put(key, b"not a lease")
    held = lane(store, clock)
    remove_dead(store, held.run, clock)
    held.release()
    lane(store, clock)
    assert set(others) <= set(store.list(LEASES))


@pytest.mark.parametrize(
    "change",
    [{"run": "zz"}, {"run": "f" * 17}, {"expires": 1e300}, {"since": -1.0}, {"state": "unheard of"}, {"run": None}],
)
def test_a_damaged_lease_is_refused_and_says_what_to_delete(change: dict[str, object]) -> None:
    store, clock = MemoryStore(), VirtualClock()
    lease = lane(store, clock)
    store.put(lease.key, msgspec.json.encode(msgspec.to_builtins(lease.terms) | change))
    with pytest.raises(WireError, match=f"{lease.key} is damaged: .*; delete it"):
        lane(store, clock)


def test_a_damaged_lease_keeps_no_other_dead_run() -> None:
    store, clock = MemoryStore(), VirtualClock()
    leases = [take_lease(store, 900.0, clock) for _ in range(3)]
    for lease in leases:
        store.put(f"runs/{lease.run}/inputs/0", b"")
    damaged = min(leases, key=lambda lease: lease.key)
    store.put(damaged.key, b"no lease")
    clock.sleep(LEASE_SECONDS)
    remove_dead(store, "", clock)
    assert store.list("runs/") == [f"runs/{damaged.run}/inputs/0"]


@pytest.mark.parametrize("damage", [True, False])
def test_a_worker_that_cannot_see_its_lease_ends_in_time_and_says_why(damage: bool) -> None:
    store, clock = Refusing(), VirtualClock()
    lease = take_lease(store, 900.0, clock)
    watch = Watch(store, lease.key, clock)
    if damage:
        store.put(lease.key, b"no lease")
    store.refuses = not damage
    with pytest.raises(RunError, match=r"as far as can be seen: .*(is damaged|not now)"):
        _until_it_raises(partial(_look_after, clock, watch))
    assert clock.now() < LEASE_SECONDS - BEAT_SECONDS
