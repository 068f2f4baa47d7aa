"""Forecast memory against the peak of workers that are processes of their own."""

from __future__ import annotations

import pytest

from benchmarks.forecast import Case, peaks
from benchmarks.memory import random_network
from fsd_local import LocalBackend
from fsdcore.client.batching import batches_of, default_batch_size
from fsdcore.estimate.activity import activity_of, structure_of
from fsdcore.estimate.calibrate import runtime_bytes
from fsdcore.estimate.profile import memory_bytes, profile_of
from fsdcore.network.generate import digits, radixnet
from fsdcore.partition import make_partition


@pytest.mark.parametrize(
    ("neurons", "workers", "samples"),
    [
        (1024, 2, 2000),
        pytest.param(1024, 8, 2000, marks=pytest.mark.slow),
        pytest.param(1024, 20, 2000, marks=pytest.mark.slow),
        pytest.param(4096, 2, 2000, marks=pytest.mark.slow),
        pytest.param(4096, 8, 2000, marks=pytest.mark.slow),
        pytest.param(4096, 20, 2000, marks=pytest.mark.slow),
    ],
)
def test_memory_is_forecast_closely_and_never_too_low(neurons: int, workers: int, samples: int) -> None:
    """With the interpreter and libraries of this machine, as `fsd calibrate` takes them."""
    network = radixnet(neurons, 12)
    _compare(Case(network, digits(samples, neurons), make_partition(network, workers, "block")))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("share", [0.08, 0.48])
def test_memory_is_forecast_where_no_rows_are_the_same(share: float, workers: int) -> None:
    network, inputs = random_network(4096, 24, 8192, share)
    _compare(Case(network, inputs, make_partition(network, workers, "block")))


def _compare(case: Case) -> None:
    samples = int(case.inputs.shape[0])
    structure = structure_of(case.network, case.partition)
    rows = structure.largest_rows
    batches = batches_of(rows, samples, default_batch_size(rows, samples), workers=case.partition.workers)
    profile = profile_of(structure, activity_of(case.network, case.inputs)).scaled(max(batches.sizes))
    needed = memory_bytes(profile, runtime_bytes(LocalBackend()), batches.in_flight)
    found = peaks(case)
    assert all(peak <= need for need, peak in zip(needed, found, strict=True))
    # By chance messages come together at some workers and one after another at the rest.
    assert max(needed) <= 1.25 * max(found)
