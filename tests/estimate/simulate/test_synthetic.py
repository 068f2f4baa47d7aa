"""Networks that are only a size, against networks that are there."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from fsdcore.errors import InputError
from fsdcore.estimate import Setting, Target
from fsdcore.estimate.activity import assumed_activity
from fsdcore.estimate.prepare import forecaster_for
from fsdcore.estimate.simulate import STEADY, Shape, shape_work, work_of
from fsdcore.estimate.simulate.engine import simulate_once
from fsdcore.estimate.simulate.synthetic import shape_forecaster
from fsdcore.network.generate import radixnet
from fsdcore.partition import make_partition

_SETTING = Setting("queue", 8, 2 << 30, 4, 100)


def _shape(**changes: Any) -> Shape:
    return Shape(**{"neurons": 1024, "layers": 8, "workers": 8, "samples": 100, "densities": [0.2], **changes})


@pytest.mark.parametrize("workers", [4, 20])
@pytest.mark.parametrize("density", [0.05, 0.4])
def test_a_random_split_is_as_one_that_is_made(aws: Target, workers: int, density: float) -> None:
    """What is drawn from a size sends what a random split of a network of that size sends."""
    network, setting = radixnet(1024, 8), _SETTING._replace(workers=workers)
    split, activity = make_partition(network, workers, "random"), assumed_activity(network, [density], 100)
    real = work_of(forecaster_for(network, split, activity, aws), setting)
    drawn = shape_work(_shape(workers=workers, densities=[density], exchange=1.0), aws, setting)
    for name, tolerance in (("messages", 0.02), ("nonzeros_sent", 0.1), ("bytes_sent", 0.15), ("rows_sent", 0.1)):
        counted, guessed = (float(work.batches[0].sent[name].sum()) for work in (real, drawn))
        assert guessed == pytest.approx(counted, rel=tolerance), name
    made, sized = (simulate_once(work, STEADY, 0)[0].wall_seconds for work in (real, drawn))
    assert sized == pytest.approx(made, rel=0.1)
    weights = real.memory_bytes.sum(), drawn.memory_bytes.sum()
    assert weights[1] == pytest.approx(weights[0], rel=0.05)


def test_layers_repeat_where_all_have_one_density(aws: Target) -> None:
    short, long = (shape_work(_shape(layers=n), aws, _SETTING) for n in (5, 13))
    assert long.layers == 13
    sent = long.batches[0].sent["bytes_sent"]
    assert sent[0].sum() == 0
    np.testing.assert_array_equal(sent[1:5], sent[5:9])
    np.testing.assert_array_equal(sent[1:5], short.batches[0].sent["bytes_sent"][1:])
    assert long.batches[0].traffic[1] is long.batches[0].traffic[5]
    assert (long.memory_bytes > short.memory_bytes).all()


def test_layers_of_their_own_density_are_drawn_each(aws: Target) -> None:
    falling = [0.5 / (1 + k) for k in range(9)]
    work = shape_work(_shape(densities=falling), aws, _SETTING)
    nonzeros = work.batches[0].sent["nonzeros_sent"].sum(axis=1)[1:]
    assert (np.diff(nonzeros) < 0).all()


def test_a_better_split_sends_less(aws: Target) -> None:
    sent = [
        int(shape_work(_shape(exchange=share), aws, _SETTING).batches[0].sent["bytes_sent"].sum())
        for share in (1.0, 0.3, 0.05)
    ]
    assert sent[0] > sent[1] > sent[2] > 0


@pytest.mark.parametrize("layers", [1, 2])
def test_a_network_of_few_layers_has_its_forecast(aws: Target, layers: int) -> None:
    shape = _shape(layers=layers)
    forecast = shape_forecaster(shape, aws).forecast(_SETTING)
    work = shape_work(shape, aws, _SETTING)
    assert forecast.counters["messages"] == work.batches[0].sent["messages"].sum()
    assert (forecast.counters["messages"] == 0) == (layers == 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neurons": 0}, "neurons must be at least 1, not 0"),
        ({"workers": 2000}, "2000 workers for 1024 neurons"),
        ({"connections": 2000}, "2000 connections of a neuron to 1024 neurons"),
        ({"exchange": 0.0}, "exchange must be above 0 and at most 1, not 0.0"),
        ({"exchange": float("nan")}, "exchange must be above 0"),
        ({"densities": [0.1, 0.2]}, "2 densities; one is needed, or 9, for the input and each layer"),
        ({"densities": [1.2]}, "a density must be between 0 and 1"),
    ],
)
def test_a_size_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _shape(**changes)


def test_groups_are_not_simulated(aws: Target) -> None:
    with pytest.raises(InputError, match="of one group of workers, not of 2"):
        shape_work(_shape(), aws, _SETTING._replace(replicas=2))


_LARGE = """
import resource, sys
from benchmarks.simulate import Size, sized
from fsdcore.estimate.simulate import load_conditions
from fsdcore.estimate.simulate.engine import simulate_once
work = sized(Size(65536, int(sys.argv[1]), "queue", exchange=float(sys.argv[3]), layers=int(sys.argv[2])))
ledger, _ = simulate_once(work, load_conditions("usual"), 0)
totals = ledger.totals()
record = ledger.record("0" * 16, "simulated", {})
print(len(record.per_worker), record.layers, totals["messages"], totals["receives"], totals["frames"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("workers", "layers", "exchange"), [(1000, 120, 0.1), (10_000, 12, 0.1)])
def test_thousands_of_workers_fit_two_gigabytes(workers: int, layers: int, exchange: float) -> None:
    """A process of its own, whose peak is its own. How long it takes: ``python -m benchmarks.simulate --scale``."""
    program = [sys.executable, "-c", _LARGE, str(workers), str(layers), str(exchange)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    first, peak = done.stdout.splitlines()
    ranks, deep, messages, receives, frames = map(int, first.split())
    assert (ranks, deep) == (workers, layers)
    assert messages > 2_000_000
    assert frames / 10 <= receives <= frames + workers
    assert int(peak) * 1024 < 2e9


def test_more_samples_are_more_work(aws: Target) -> None:
    few, many = (
        shape_work(_shape(samples=samples), aws, _SETTING._replace(batch_size=samples)) for samples in (50, 5000)
    )
    assert len(few.batches) == len(many.batches) == 1
    assert many.batches[0].loads.local.sum() == pytest.approx(100 * few.batches[0].loads.local.sum(), rel=0.05)
    split = shape_work(_shape(samples=5000), aws, _SETTING._replace(batch_size=500))
    assert len(split.batches) == 10
    assert len({id(batch) for batch in split.batches}) == 1
    assert dataclasses.replace(split, in_flight=1).samples == 5000
