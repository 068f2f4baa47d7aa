"""A worker alone: what it leaves in the store, however it ends."""

from __future__ import annotations

import pytest

from backends.local import LocalBackend
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.compute import Compute, Invocation
from fsdcore.errors import ComputeError, KeyMissingError, PlanError, WireError
from fsdcore.exchange import claim, read_done, read_failure, write_inputs
from fsdcore.partition import make_partition
from fsdcore.plan_store import write_plan
from fsdcore.testing import random_inputs, random_network
from fsdcore.wire import new_run_id
from fsdcore.worker import peak_memory_bytes, run_worker

NETWORK = random_network((20, 24, 24, 20))
INPUTS = random_inputs(12, 20)


@pytest.fixture
def backend() -> LocalBackend:
    made = LocalBackend()
    write_plan(made.store, "plan", NETWORK, make_partition(NETWORK, 1, "block"))
    return made


def invocation(backend: LocalBackend, workers: int = 1, deadline_seconds: float = 5.0) -> Invocation:
    run = new_run_id()
    write_inputs(backend.store, run, 0, INPUTS)
    return Invocation(
        run=run,
        rank=0,
        workers=workers,
        channel="queue",
        lane=0,
        plan="plan",
        batches=(INPUTS.shape[0],),
        branching=2,
        deadline_seconds=deadline_seconds,
        run_seconds=30.0,
        started=SYSTEM_CLOCK.wall(),
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
def test_a_worker_that_begins_after_the_end_of_its_run_leaves_nothing(backend: LocalBackend, workers: int) -> None:
    if workers > 1:
        write_plan(backend.store, "plan", NETWORK, make_partition(NETWORK, workers, "block"))
    order = invocation(backend, workers)
    backend.store.delete(backend.store.list(f"runs/{order.run}/"))
    with pytest.raises(KeyMissingError):
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


def test_a_bug_is_told_with_its_trace(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("fsdcore.loop.BatchLoop.encode", broken)
    order = invocation(backend)
    with pytest.raises(ZeroDivisionError):
        run_worker(backend, order)
    said = read_failure(backend.store, f"runs/{order.run}/end/failed-0")
    assert (said.error, said.message) == ("ZeroDivisionError", "a bug")
    assert "Traceback" in said.trace
