"""Counters of a simulated run against those of the same run in threads.

What depends on time in a real run is compared in what is determined: requests to the store without looks in vain, and
receives where each brings one frame. `lists` are all looks of the client, and cannot be compared.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from fsd_local import LocalBackend, LocalSettings
from fsd_local.stores import MemoryStore
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import KeyMissingError
from fsdcore.estimate.simulate import STEADY, Billing, Simulation, load_conditions
from fsdcore.estimate.simulate.engine import simulate_once
from fsdcore.network.network import Network
from fsdcore.partition import make_partition
from fsdcore.record.record import ACTIVITIES, COUNTERS, Record
from fsdcore.testing import random_inputs, random_network
from tests.estimate.simulate.conftest import work_of_run

_SENT = ("rows_sent", "nonzeros_sent", "messages", "frames", "publishes", "bytes_sent", "blocks_sent")
_ONE_BY_ONE = LocalSettings(max_receive_frames=1)
_TIGHT = LocalSettings(max_receive_frames=1, max_frame_bytes=2000, max_publish_bytes=5000, max_publish_frames=3)
_SEVERAL = dataclasses.replace(_ONE_BY_ONE, publishes_in_flight=3, background_receive=True)


class Case(NamedTuple):
    settings: RunSettings
    local: LocalSettings = LocalSettings()
    # Counters that the case determines beside those that every case does.
    determined: tuple[str, ...] = ()


def _settings(**changes: Any) -> RunSettings:
    return RunSettings(**{"method": "block", **changes})


_QUEUE = ("gets", "receives", "acknowledges")
CASES = {
    "serial, batches": Case(_settings(workers=1, batch_size=30), determined=_QUEUE),
    "queue of 2": Case(_settings(workers=2), _ONE_BY_ONE, _QUEUE),
    "queue of 3, in flight": Case(_settings(workers=3, batch_size=20, in_flight=3, branching=1), _TIGHT, _QUEUE),
    "queue of 8, a tree": Case(_settings(workers=8, batch_size=40, branching=2), _ONE_BY_ONE, _QUEUE),
    "queue of 8, many publishes": Case(_settings(workers=8, batch_size=50, in_flight=2), _SEVERAL, ("gets",)),
    "queue of 8, ten frames a receive": Case(_settings(workers=8, branching=7), determined=("gets",)),
    "object of 2": Case(_settings(workers=2, channel="object"), determined=("receives", "acknowledges")),
    "object of 3, in flight": Case(_settings(workers=3, channel="object", batch_size=20, in_flight=4)),
    "object of 8": Case(_settings(workers=8, channel="object", branching=2)),
}


@pytest.fixture
def misses(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many reads of a store have found nothing."""
    count, real = itertools.count(), MemoryStore.get_range

    def get_range(store: MemoryStore, key: str, start: int, length: int) -> bytes:
        try:
            return real(store, key, start, length)
        except KeyMissingError:
            # One step of a counter, which no thread can interrupt.
            next(count)
            raise

    monkeypatch.setattr(MemoryStore, "get_range", get_range)
    return lambda: next(count)


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network((60, 80, 70, 80, 40))


@pytest.mark.parametrize("name", CASES)
def test_counters_are_those_of_the_run_in_threads(
    name: str, network: Network, billing: Billing, misses: Callable[[], int]
) -> None:
    case, x = CASES[name], random_inputs(90, 60)
    with closing(LocalBackend(case.local)) as backend:
        work = work_of_run(backend, case.settings, network, x)
        split = make_partition(network, case.settings.workers, "block")
        before = misses()
        real = Session(backend, case.settings).load(network, split).run(x).record
        in_vain = misses() - before - 1
    simulated = Simulation(work, billing).record()
    for counter in (*_SENT, "puts", "invocations", *case.determined):
        assert simulated.counters[counter] == real.counters[counter], counter
    assert _by_rank(simulated, *_SENT) == _by_rank(real, *_SENT)
    assert [worker.bytes_to for worker in simulated.per_worker] == [worker.bytes_to for worker in real.per_worker]
    ledger, _ = simulate_once(work, STEADY, 0)
    assert simulated.counters["gets"] - ledger.vain == real.counters["gets"] - in_vain
    for totals in ("puts", "invocations", *case.determined):
        assert _sums(simulated, totals) == _sums(real, totals), totals
    frames = real.counters["frames"] + case.settings.workers - 1
    assert simulated.counters["receives"] <= frames
    assert set(simulated.counters) == set(COUNTERS)


def _by_rank(record: Record, *names: str) -> list[dict[str, list[int]]]:
    """By layer, too."""
    return [{name: worker.counters[name] for name in names} for worker in record.per_worker]


def _sums(record: Record, name: str) -> list[int]:
    return [sum(worker.counters[name]) for worker in record.per_worker]


def test_a_record_adds_up(network: Network, billing: Billing) -> None:
    settings = _settings(workers=5, batch_size=40, in_flight=2)
    with closing(LocalBackend()) as backend:
        work = work_of_run(backend, settings, network, random_inputs(90, 60))
    record = Simulation(work, billing).record()
    for name in COUNTERS:
        by_layer = sum(layer["counters"][name] for layer in record.per_layer)
        by_rank = sum(_sums(record, name))
        assert by_layer == by_rank <= record.counters[name]
    for name, seconds in record.seconds.items():
        assert sum(layer["seconds"][name] for layer in record.per_layer) == pytest.approx(seconds, abs=1e-4)
    spent = sum(worker.ended - worker.started for worker in record.per_worker)
    assert sum(record.seconds.values()) <= spent * 1.001
    for worker in record.per_worker:
        assert sum(worker.waits_for) == pytest.approx(sum(worker.seconds["wait"]), abs=1e-5)
        assert worker.waits_for[worker.rank] == 0
    assert record.samples == 90
    assert record.batches == 3


def test_a_trace_has_the_seconds_of_its_record(network: Network, billing: Billing) -> None:
    settings = _settings(workers=5, batch_size=40, in_flight=2)
    with closing(LocalBackend()) as backend:
        work = work_of_run(backend, settings, network, random_inputs(90, 60))
    simulation = Simulation(work, billing, load_conditions("usual"))
    record, plain = simulation.record(3, traced=True), simulation.record(3)
    assert record.traced
    assert not plain.traced
    assert record.seconds == plain.seconds
    for worker in record.per_worker:
        ends = [span.start_us + span.duration_us for span in worker.spans]
        assert all(span.start_us >= end for end, span in zip(ends, worker.spans[1:], strict=False))
        assert ends[-1] <= 1e6 * (worker.ended - worker.started) + 1
        for number, activity in enumerate(ACTIVITIES):
            spent = sum(span.duration_us for span in worker.spans if span.activity == number)
            assert spent == pytest.approx(1e6 * sum(worker.seconds[activity]), abs=2000), activity
