"""Whole runs on every backend: the answer is the local one to the bit, whatever the services do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Barrier
from typing import Any

import pytest
import scipy.sparse as sp

from fsd_local import LocalBackend
from fsdcore.client.session import Result, Session
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import ChannelError, FsdError, RunError, StoreError
from fsdcore.network.activations import clipped_relu
from fsdcore.network.network import Network
from fsdcore.testing import random_inputs, random_network
from fsdcore.worker.leases import take_lane
from tests.end_to_end.sites import Site, bits, calls_of

WORKERS = 4
SAMPLES = 40


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network((32, 48, 48, 48, 32), (clipped_relu(32.0),), density=0.2)


@pytest.fixture(scope="module")
def inputs() -> sp.csr_array:
    return random_inputs(SAMPLES, 32)


@pytest.fixture(scope="module")
def expected(network: Network, inputs: sp.csr_array) -> sp.csr_array:
    """What the same plan gives on threads of this process."""
    with closing(LocalBackend()) as backend:
        settings = RunSettings(workers=WORKERS, method="block")
        return sp.csr_array(Session(backend, settings).load(network).run(inputs, batch_size=16).outputs)


@pytest.fixture(params=["queue", "sqs", "object", pytest.param("stream", marks=pytest.mark.slow)])
def channel(site: Site, request: pytest.FixtureRequest) -> str:
    """Each channel that the site has."""
    if request.param not in site.channels:
        pytest.skip(f"{site.name} has no channel {request.param}")
    return str(request.param)


@pytest.fixture
def run(site: Site, network: Network, inputs: sp.csr_array) -> Any:
    """Runs the network on the site."""

    def made(**settings: Any) -> Result:
        with site.session(**{"workers": WORKERS, **settings}) as session:
            return session.load(network).run(inputs, batch_size=16)

    return made


def same(result: Result, expected: sp.csr_array) -> bool:
    """Whether the outputs are the same to the bit."""
    return bits(result.outputs) == bits(expected)


@pytest.mark.parametrize("branching", [2, 8])
def test_runs_are_the_local_ones_to_the_bit(run: Any, channel: str, branching: int, expected: sp.csr_array) -> None:
    result = run(channel=channel, branching=branching)
    assert same(result, expected)
    assert result.record.counters["invocations"] == WORKERS


@pytest.mark.parametrize("kind", ["queue", "object"])
def test_all_sites_give_the_same_bits(sites: list[Site], kind: str, network: Network, inputs: sp.csr_array) -> None:
    plans, outputs = set(), set()
    for site in sites:
        with site.session(workers=WORKERS, channel=kind) as session:
            model = session.load(network)
            plans.add(model.plan)
            outputs.add(bits(model.run(inputs, batch_size=16).outputs))
    assert (len(sites), len(plans), len(outputs)) == (3, 1, 1)


def test_a_serial_run_agrees(run: Any, network: Network, inputs: sp.csr_array) -> None:
    result = run(workers=1)
    assert abs(sp.csr_array(result.outputs) - sp.csr_array(network.infer(inputs))).max() <= 1e-4
    assert result.record.channel == "serial"


def test_a_serial_run_is_one_worker_that_the_services_saw(site: Site, run: Any) -> None:
    result = run(workers=1)
    assert [worker.rank for worker in result.record.per_worker] == [0]
    seen = site.requests(result.record.run_id)
    if seen is None:
        pytest.skip(f"nobody counts the calls of {site.name}")
    assert seen == calls_of(result.record)
    assert seen["invocations"] == 1


def test_the_record_counts_the_calls_that_the_services_saw(site: Site, run: Any, channel: str) -> None:
    result = run(channel=channel)
    seen = site.requests(result.record.run_id)
    if seen is None:
        pytest.skip(f"nobody counts the calls of {site.name}")
    counted = calls_of(result.record)
    if channel == "stream":
        # One call each worker, whatever comes by it.
        del counted["receives"]
    assert seen == counted


def test_a_misbehaving_service_does_not_change_the_result(
    site: Site, run: Any, channel: str, expected: sp.csr_array
) -> None:
    site.harm(site.faults(channel)[0])
    assert same(run(channel=channel), expected)
    assert site.harmed()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_misbehaving_service_changes_the_result(site: Site, run: Any, channel: str, expected: sp.csr_array) -> None:
    for fault in site.faults(channel)[1:]:
        site.harm(fault)
        assert same(run(channel=channel), expected), fault
        assert site.harmed(), fault
        site.heal()


def test_a_lost_worker_ends_the_run_in_time_and_the_next_is_exact(
    site: Site, run: Any, channel: str, expected: sp.csr_array
) -> None:
    site.lose_a_worker(site.losses[0])
    with pytest.raises(RunError) as caught:
        run(channel=channel, deadline_seconds=5.0)
    assert caught.value.rank is not None
    site.heal()
    assert same(run(channel=channel), expected)


def test_a_worker_that_never_begins_ends_the_run_in_time_and_the_next_is_exact(
    site: Site, run: Any, channel: str, expected: sp.csr_array
) -> None:
    if not site.withhold_a_worker():
        pytest.skip(f"workers of {site.name} all begin")
    with pytest.raises(RunError) as caught:
        run(channel=channel, deadline_seconds=5.0)
    assert caught.value.rank is not None
    site.heal()
    assert same(run(channel=channel), expected)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_may_be_lost_at_any_time(site: Site, run: Any, channel: str, expected: sp.csr_array) -> None:
    """Where rank 0 is lost before it starts others, nobody is left to tell: then the end of the run's time does."""
    if not site.losses[1:]:
        pytest.skip(f"workers of {site.name} are lost at one moment only")
    for when in site.losses[1:]:
        site.lose_a_worker(when)
        with pytest.raises(RunError):
            run(channel=channel, deadline_seconds=5.0, run_seconds=30.0)
        assert site.harmed(), when
        site.heal()
        assert same(run(channel=channel), expected), when


@pytest.mark.slow
def test_a_channel_that_takes_nothing_ends_the_run_with_the_cause(
    site: Site, run: Any, channel: str, expected: sp.csr_array
) -> None:
    cause = site.block(channel)
    if not cause:
        pytest.skip(f"{site.name} cannot be told to block a channel")
    # Beyond the time that a test may take: the cause must be told as soon as it is known.
    with pytest.raises((ChannelError, StoreError), match=cause) as caught:
        run(channel=channel, deadline_seconds=900.0, run_seconds=900.0)
    assert caught.value.rank is not None
    site.heal()
    assert same(run(channel=channel), expected)


def test_a_run_right_after_a_cancelled_one_is_exact(
    site: Site, network: Network, inputs: sp.csr_array, channel: str, expected: sp.csr_array
) -> None:
    with site.session(workers=WORKERS, channel=channel) as session:
        model = session.load(network)
        others = session.backend.store.list("runs/")
        invoke, session.backend.compute.invoke = session.backend.compute.invoke, _cancelled(session)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            model.run(inputs, batch_size=16)
        if session.backend.compute.capabilities.reports_exit:
            assert session.backend.store.list("runs/") == others
        session.backend.compute.invoke = invoke  # type: ignore[method-assign]
        assert same(model.run(inputs, batch_size=16), expected)


def _cancelled(session: Session) -> Any:
    """Start rank 0, and have the user press Ctrl-C at once."""
    invoke = session.backend.compute.invoke

    def interrupted(invocation: Any) -> None:
        invoke(invocation)
        if invocation.rank == 0:
            raise KeyboardInterrupt

    return interrupted


def test_two_runs_at_once_are_both_exact(
    site: Site, network: Network, inputs: sp.csr_array, channel: str, expected: sp.csr_array
) -> None:
    """Neither starts its workers before the other has its lane; with one lane, the second waits for the first."""
    with site.session(workers=WORKERS, channel=channel) as one, site.session(workers=WORKERS, channel=channel) as other:
        lanes = one.backend.channel_capabilities(channel).lanes
        both = Barrier(1 if lanes == 1 else 2)
        for session in (one, other):
            session.backend.compute.invoke = _after(both, session)  # type: ignore[method-assign]
        models = [session.load(network) for session in (one, other)]
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda model: model.run(inputs, batch_size=16), models))
    assert all(same(result, expected) for result in results)


def _after(both: Barrier, session: Session) -> Any:
    """Start rank 0 when as many runs as `both` counts are about to."""
    invoke = session.backend.compute.invoke

    def begin(invocation: Any) -> None:
        if invocation.rank == 0:
            both.wait(60.0)
        invoke(invocation)

    return begin


def test_a_second_run_that_may_not_wait_is_refused(site: Site, network: Network, inputs: sp.csr_array) -> None:
    with site.session(workers=WORKERS, channel="queue", run_seconds=1.0) as session:
        limits = session.backend.channel_capabilities("queue")
        if limits.lanes is None:
            pytest.skip(f"{site.name} has no lanes")
        pool, model = limits.lane_pool or "queue", session.load(network)
        with held_lanes(session, pool, limits.lanes), pytest.raises(FsdError, match=r"lanes of the .* are taken"):
            model.run(inputs)


@contextmanager
def held_lanes(session: Session, pool: str, lanes: int) -> Iterator[None]:
    """Hold every lane, as other runs would."""
    store, seconds = session.backend.store, 60.0
    held = [take_lane(store, pool, lanes, seconds, Deadline.after(seconds, SYSTEM_CLOCK), print) for _ in range(lanes)]
    try:
        yield
    finally:
        for lease in held:
            lease.release()


def test_nothing_is_left_of_a_run(site: Site, run: Any, channel: str) -> None:
    result = run(channel=channel)
    with closing(site.open()) as backend:
        assert backend.store.list(f"runs/{result.record.run_id}/") == []
