"""The quality report against a count by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.errors import PlanError
from fsdcore.kernels import _native, make_kernel
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Network
from fsdcore.partition import METHODS, Partition, QualityReport, make_partition, quality
from fsdcore.plan.plan import from_arrays, layer_arrays
from tests.partition.networks import networks

Needs = set[tuple[int, int, int]]


def needed(network: Network, partition: Partition, layer: int) -> Needs:
    """(owner, reader, neuron) for each input neuron of the layer that a rank reads."""
    matrix = network.layers[layer - 1].weights.toarray()
    before, after = partition.owners[layer - 1], partition.owners[layer]
    return {(int(before[j]), int(after[i]), int(j)) for i, j in zip(*np.nonzero(matrix), strict=True)}


def sent(needs: Needs) -> Needs:
    return {(source, target, neuron) for source, target, neuron in needs if source != target}


def any_partition(network: Network, workers: int, seed: int) -> Partition:
    rng = np.random.default_rng(seed)
    owners = tuple(rng.integers(0, workers, width).astype(np.int32) for width in network.widths)
    return Partition(workers, owners, "any")


@given(network=networks(), workers=st.sampled_from([1, 2, 3, 8, 40]), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_counts_are_those_of_a_count_by_hand(network: Network, workers: int, seed: int) -> None:
    partition = any_partition(network, workers, seed)
    report = quality(network, partition)
    first = needed(network, partition, 1)
    later = [sent(needed(network, partition, layer)) for layer in range(2, len(network) + 1)]
    assert report.rows_sent_per_layer == (0, *map(len, later))
    assert report.rows_sent == sum(map(len, later))
    assert report.input_rows_read == len({(target, neuron) for _, target, neuron in first})
    assert report.input_rows_moved == len(sent(first))
    assert report.pairs == sum(len({(source, target) for source, target, _ in rows}) for rows in later)


@given(network=networks(), workers=st.sampled_from([1, 2, 3, 8]), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_imbalance_is_the_largest_load_over_the_mean(network: Network, workers: int, seed: int) -> None:
    partition = any_partition(network, workers, seed)
    for layer, imbalance in enumerate(quality(network, partition).load_imbalance, start=1):
        rows = network.layers[layer - 1].weights.toarray() != 0
        loads = [int(rows[partition.owners[layer] == rank].sum()) for rank in range(workers)]
        assert imbalance == (max(loads) / (sum(loads) / workers) if sum(loads) else 1.0)


@given(network=networks(), workers=st.sampled_from([1, 2, 5]), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_memory_is_the_most_that_the_compiled_kernel_takes(network: Network, workers: int, seed: int) -> None:
    """Less only by rows that share their indices, which are one group in it, and have them once."""
    partition, kernel = any_partition(network, workers, seed), make_kernel("compiled")
    taken, groups = np.zeros(workers, np.int64), np.zeros(workers, np.int64)
    for layer, ranks in zip(network.layers, layer_arrays(network, partition), strict=True):
        for rank, arrays in enumerate(ranks):
            prepared = kernel.prepare(from_arrays(arrays, layer.activation))
            for block in prepared.blocks:
                described, alike = _native.describe(block.block)
                shared = prepared.rows - alike
                taken[rank] += described + 16 * shared
                groups[rank] += 2 * block.nnz if shared else 0
            taken[rank] += prepared.bias.nbytes + sum(send.rows.nbytes for send in prepared.sends)
    memory = np.array(quality(network, partition).memory_bytes)
    assert (memory >= taken).all()
    assert (memory <= taken + groups).all()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_worker_sends_nothing(method: str) -> None:
    network = radixnet(64, 3)
    report = quality(network, make_partition(network, 1, method))
    assert (report.rows_sent, report.pairs, report.input_rows_moved) == (0, 0, 0)
    assert report.load_imbalance == (1.0, 1.0, 1.0)


def test_the_report_is_frozen_and_its_text_fits_a_screen() -> None:
    network = radixnet(256, 4)
    report = quality(network, make_partition(network, 8, "block"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.rows_sent = 0  # type: ignore[misc]
    assert str(report).splitlines() == report.lines()
    assert len(report.lines()) <= 24
    assert max(map(len, report.lines())) <= 80
    assert f"{report.rows_sent:,}" in str(report)
    assert f"{report.pairs:,}" in str(report)
    assert isinstance(report, QualityReport)


def test_a_partition_of_another_network_is_refused() -> None:
    with pytest.raises(PlanError, match="another network"):
        quality(radixnet(64, 3), make_partition(radixnet(64, 2), 2, "block"))
