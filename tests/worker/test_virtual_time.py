"""Whole runs in virtual time: client, workers and channel go by one clock, and nobody waits for the machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from fsd_local import LocalSettings
from fsdcore.client.session import Result
from fsdcore.contracts.compute import Invocation
from fsdcore.errors import DeadlineError, WorkerFailedError
from fsdcore.faults import Crash, Delay
from fsdcore.network.network import Network
from fsdcore.testing import random_inputs, random_network
from fsdcore.testing.clock import VirtualClock
from tests.conftest import SessionMaker

HOP = 0.05
SMALL, INPUTS = random_network((20, 24, 24, 20)), random_inputs(12, 20)
SETTINGS = [LocalSettings(), LocalSettings(publishes_in_flight=3, background_receive=True)]


def exchanges(network: Network) -> float:
    """Seconds that a run waits for messages at least: one hop before each layer but the first, one for the records."""
    return len(network) * HOP


def test_a_run_of_eight_workers_and_120_layers_takes_as_long_as_its_messages(make_session: SessionMaker) -> None:
    network, x = random_network((32,) * 121, density=0.15, bias=-0.01), random_inputs(12, 32)
    clock = VirtualClock()
    session = make_session(Delay(seconds=HOP), workers=8, clock=clock)
    result = session.load(network).run(x)
    plain = make_session(workers=8).load(network).run(x)
    assert (result.outputs != plain.outputs).nnz == 0
    least = exchanges(network)
    # The client looks at the end of a run this often.
    assert least <= result.record.wall_seconds <= clock.now() <= least + 0.1
    for worker in result.record.per_worker:
        assert sum(worker.seconds["wait"]) == pytest.approx(119 * HOP, abs=3 * HOP)
        assert sum(sum(spent) for name, spent in worker.seconds.items() if name != "wait") == 0.0
        assert worker.ended - worker.started <= least + 1e-6


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("channel", ["queue", "object"])
def test_a_run_takes_the_same_time_each_time(make_session: SessionMaker, channel: str, settings: LocalSettings) -> None:
    def run() -> tuple[Result, float]:
        clock = VirtualClock()
        session = make_session(Delay(seconds=HOP), settings=settings, clock=clock, channel=channel, workers=4)
        return session.load(SMALL).run(INPUTS), clock.now()

    (first, end), (again, end_again) = run(), run()
    assert (first.outputs != again.outputs).nnz == 0
    assert end == end_again
    assert exchanges(SMALL) <= first.record.wall_seconds <= exchanges(SMALL) + 0.1
    assert first.record.per_layer == again.record.per_layer


def without(rank: int, invoke: Callable[[Invocation], None], invocation: Invocation) -> None:
    """Start all but one rank."""
    if invocation.rank != rank:
        invoke(invocation)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_worker_that_never_starts_is_missed_when_the_wait_for_it_is_over(
    make_session: SessionMaker, settings: LocalSettings
) -> None:
    clock = VirtualClock()
    session = make_session(Delay(seconds=HOP), settings=settings, clock=clock, workers=4, deadline_seconds=60.0)
    compute = session.backend.compute
    compute.invoke = partial(without, 2, compute.invoke)  # type: ignore[method-assign]
    with pytest.raises(DeadlineError, match="layer 2, peer 2: nothing came from rank 2 within 60 s"):
        session.load(SMALL).run(INPUTS)
    # The client looks, and then waits for all that have begun.
    assert 60.0 <= clock.now() <= 61.0


def test_a_run_that_nobody_begins_ends_with_its_time(make_session: SessionMaker) -> None:
    clock = VirtualClock()
    session = make_session(clock=clock, workers=4, run_seconds=100.0)
    compute = session.backend.compute
    compute.invoke = partial(without, 0, compute.invoke)  # type: ignore[method-assign]
    with pytest.raises(DeadlineError, match="did not end within 100 s"):
        session.load(SMALL).run(INPUTS)
    # However long it took, its lease was kept alive; then its workers have some seconds to end.
    assert 100.0 <= clock.now() <= 111.0


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_worker_that_dies_is_told_of_at_once(make_session: SessionMaker, settings: LocalSettings) -> None:
    clock = VirtualClock()
    session = make_session(
        Delay(seconds=HOP),
        Crash("send", by=3, skip=1, times=1),
        settings=settings,
        clock=clock,
        workers=4,
        deadline_seconds=60.0,
    )
    with pytest.raises(WorkerFailedError, match=r"rank 3.*without a word"):
        session.load(SMALL).run(INPUTS)
    assert clock.now() <= 2.0
    assert session.backend.store.list("runs/") == []
