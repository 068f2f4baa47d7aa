"""A worker alone: what it leaves in the store, however it ends."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest

from fsd_local import LocalBackend
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.channel import Address
from fsdcore.contracts.compute import Compute, Invocation, new_run_id
from fsdcore.contracts.settings import RunSettings
from fsdcore.contracts.store import Store
from fsdcore.errors import AbortedError, ComputeError, DeadlineError, KeyMissingError, PlanError, StoreError, WireError
from fsdcore.messages.frames import CLIENT
from fsdcore.messages.mailbox import AbortNotice
from fsdcore.messages.messenger import abort_frames
from fsdcore.partition import make_partition
from fsdcore.plan.files import write_plan
from fsdcore.testing import random_inputs, random_network
from fsdcore.worker.handoff import claim, read_done, read_failure, read_inputs, write_done, write_inputs
from fsdcore.worker.leases import Lease, take_lease
from fsdcore.worker.worker import peak_memory_bytes, run_worker

NETWORK = random_network((20, 24, 24, 20))
INPUTS = random_inputs(12, 20)


@pytest.fixture
def backend() -> LocalBackend:
    made = LocalBackend()
    write_plan(made.store, "plan", NETWORK, make_partition(NETWORK, 1, "block"))
    return made


def invocation(
    backend: LocalBackend, workers: int = 1, deadline_seconds: float = 5.0, lease: Lease | None = None
) -> Invocation:
    run = lease.run if lease else new_run_id(SYSTEM_CLOCK)
    write_inputs(backend.store, run, 0, INPUTS)
    return Invocation(
        run=run,
        rank=0,
        lane=0,
        plan="plan",
        batches=(INPUTS.shape[0],),
        settings=RunSettings(workers=workers, branching=2, deadline_seconds=deadline_seconds, in_flight=1),
        run_seconds=30.0,
        lease=lease.key if lease else "",
    )


def failure(backend: LocalBackend, run: str) -> tuple[str, int | None]:
    (key,) = backend.store.list(f"runs/{run}/end/")
    said = read_failure(backend.store, key)
    assert said.rank == 0
    return said.error, said.layer


def test_it_says_that_the_run_is_done_and_what_it_did(backend: LocalBackend) -> None:
    order = invocation(backend)
    run_worker(backend, order)
    (record,) = read_done(backend.store, order.run)
    assert sum(record.counters["gets"]) >= 2
    assert 1 << 20 < record.peak_memory_bytes <= peak_memory_bytes()


def test_a_rank_that_is_claimed_is_left_alone(backend: LocalBackend) -> None:
    order = invocation(backend)
    assert claim(backend.store, order.run, 0)
    before = backend.store.list("")
    run_worker(backend, order)
    assert backend.store.list("") == before


@pytest.mark.parametrize("workers", [1, 3])
def test_rank_0_that_begins_after_the_end_of_its_run_starts_and_leaves_nothing(
    backend: LocalBackend, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Invocation] = []
    monkeypatch.setattr(backend.compute, "invoke", started.append)
    order = invocation(backend, workers, lease=ended(backend))
    backend.store.delete(backend.store.list("runs/"))
    run_worker(backend, order)
    assert (started, backend.store.list("runs/")) == ([], [])


def ended(backend: LocalBackend) -> Lease:
    """The lease of a run that is over."""
    lease = take_lease(backend.store, 30.0, SYSTEM_CLOCK)
    lease.release()
    return lease


def test_another_rank_that_begins_after_the_end_of_its_run_leaves_nothing(backend: LocalBackend) -> None:
    write_plan(backend.store, "plan", NETWORK, make_partition(NETWORK, 3, "block"))
    order = invocation(backend, 3, lease=ended(backend)).for_rank(2)
    backend.store.delete(backend.store.list("runs/"))
    with pytest.raises(KeyMissingError):
        run_worker(backend, order)
    assert backend.store.list("runs/") == []


def test_a_worker_alone_stops_when_its_run_is_over_and_leaves_nothing(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsdcore.worker.leases._SHORTEST_LOOK", 0.0)
    lease = take_lease(backend.store, 30.0, SYSTEM_CLOCK)

    def end_and_read(*given: Any) -> Any:
        lease.end()
        return read_inputs(*given)

    monkeypatch.setattr("fsdcore.worker.worker.read_inputs", end_and_read)
    with pytest.raises(AbortedError, match="the client has stopped the run"):
        run_worker(backend, invocation(backend, lease=lease))
    assert backend.store.list("runs/") == []


def test_a_run_that_is_over_as_its_last_worker_ends_leaves_nothing(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = take_lease(backend.store, 30.0, SYSTEM_CLOCK)

    def end_and_write(*given: Any) -> None:
        lease.end()
        write_done(*given)

    monkeypatch.setattr("fsdcore.worker.worker.write_done", end_and_write)
    run_worker(backend, invocation(backend, lease=lease))
    assert backend.store.list("runs/") == []


def test_the_end_of_the_run_ends_a_worker_alone(backend: LocalBackend) -> None:
    order = msgspec.structs.replace(invocation(backend), run_seconds=0.0)
    with pytest.raises(DeadlineError, match="time is up"):
        run_worker(backend, order)
    assert failure(backend, order.run)[0] == "DeadlineError"


def test_children_are_told_what_is_left_of_the_run(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Invocation] = []
    monkeypatch.setattr(backend.compute, "invoke", started.append)
    write_plan(backend.store, "plan", NETWORK, make_partition(NETWORK, 3, "block"))
    order = invocation(backend, 3, deadline_seconds=0.01)
    with pytest.raises(DeadlineError):
        run_worker(backend, order)
    assert [child.rank for child in started] == [1, 2]
    assert all(0.0 < child.run_seconds < order.run_seconds for child in started)


def test_a_claim_that_the_store_refuses_is_told(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise StoreError("the store is not to be had")

    monkeypatch.setattr("fsdcore.worker.worker.claim", refuse)
    order = invocation(backend)
    with pytest.raises(StoreError, match="not to be had"):
        run_worker(backend, order)
    assert failure(backend, order.run) == ("StoreError", None)


def test_a_worker_that_is_stopped_while_its_run_is_removed_leaves_nothing(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plan(backend.store, "plan", NETWORK, make_partition(NETWORK, 2, "block"))
    lease = take_lease(backend.store, 30.0, SYSTEM_CLOCK)
    order = invocation(backend, 2, lease=lease)
    channel = backend.open_channel("queue", Address(order.run, 0, 2))
    notice = AbortNotice(error="KeyboardInterrupt", message="the run was stopped")
    channel.send(abort_frames(order.run, CLIENT, 2, notice, channel.capabilities.max_frame_bytes))

    def read_and_remove(store: Store, run: str, *more: Any) -> Any:
        inputs = list(read_inputs(store, run, *more))
        backend.store.delete(backend.store.list(f"runs/{run}/"))
        lease.release()
        claim(backend.store, run, order.rank)
        return inputs

    monkeypatch.setattr("fsdcore.worker.worker.read_inputs", read_and_remove)
    monkeypatch.setattr("fsdcore.worker.worker.start_children", lambda *_: None)
    with pytest.raises(AbortedError):
        run_worker(backend, order)
    backend.close()
    assert backend.store.list("runs/") == []


def test_a_missing_plan_is_told_and_raised(backend: LocalBackend) -> None:
    order = invocation(backend)
    backend.store.delete(["plans/plan/0"])
    with pytest.raises(KeyMissingError) as caught:
        run_worker(backend, order)
    assert (caught.value.run, caught.value.rank) == (order.run, 0)
    assert failure(backend, order.run) == ("KeyMissingError", None)


def test_damaged_inputs_are_told_with_their_layer(backend: LocalBackend) -> None:
    order = invocation(backend)
    backend.store.put(f"runs/{order.run}/inputs/0", b"no inputs")
    with pytest.raises(WireError):
        run_worker(backend, order)
    assert failure(backend, order.run) == ("WireError", 1)


def test_a_plan_for_other_workers_is_refused(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.compute, "invoke", lambda invocation: None)
    order = invocation(backend, workers=2)
    with pytest.raises(PlanError, match="not a plan for rank 0 of 2"):
        run_worker(backend, order)


def test_children_that_cannot_be_started_end_the_run(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Compute, invocation: Invocation) -> None:
        raise ComputeError("no room for another worker")

    monkeypatch.setattr(type(backend.compute), "invoke", refuse)
    order = invocation(backend, workers=3)
    with pytest.raises(ComputeError, match="no room"):
        run_worker(backend, order)
    assert failure(backend, order.run) == ("ComputeError", None)


@pytest.mark.parametrize(("reports", "said"), [(False, "within 0.05 s"), (True, "before the time of the run was up")])
def test_a_rank_that_may_be_starting_is_waited_for_where_lost_starts_are_told(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch, reports: bool, said: str
) -> None:
    limits = dataclasses.replace(backend.compute.capabilities, reports_starts=reports)
    monkeypatch.setattr(type(backend.compute), "capabilities", limits)
    monkeypatch.setattr(backend.compute, "invoke", lambda invocation: None)
    write_plan(backend.store, "plan", NETWORK, make_partition(NETWORK, 2, "block"))
    order = invocation(backend, workers=2, deadline_seconds=0.05)
    with pytest.raises(DeadlineError, match=f"nothing came from rank 1 {said}"):
        run_worker(backend, order, end=time.monotonic() + 1.0)


def test_a_bug_is_told_with_its_trace(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("fsdcore.worker.loop.BatchLoop.encode", broken)
    order = invocation(backend)
    with pytest.raises(ZeroDivisionError):
        run_worker(backend, order)
    said = read_failure(backend.store, f"runs/{order.run}/end/failed-0")
    assert (said.error, said.message) == ("ZeroDivisionError", "a bug")
    assert "Traceback" in said.trace


def test_a_process_knows_how_long_ago_it_began() -> None:
    imports = "from fsdcore.worker.worker import process_seconds as s"
    code = f"import time; time.sleep(0.3); {imports}; a = s(); print(a, s() - a)"
    began = time.monotonic()
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lasted = time.monotonic() - began
    told, later = map(float, said.split())
    # The kernel counts in hundredths.
    assert 0.25 < told < lasted + 0.02
    assert 0.0 <= later < 1.0
