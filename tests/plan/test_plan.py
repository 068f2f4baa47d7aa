"""Plans: together the parts of all ranks are the network, and nothing travels in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.arrays import Float32s
from fsdcore.errors import PlanError, WireError
from fsdcore.messages.segments import Arrays
from fsdcore.network.activations import IDENTITY, RELU, SIGMOID, Activation, clipped_relu
from fsdcore.network.network import Layer, Network
from fsdcore.partition import Partition, make_partition, quality
from fsdcore.plan.plan import LayerPart, check_workers, from_arrays, layer_arrays
from fsdcore.testing import random_network

ACTIVATIONS = [IDENTITY, RELU, SIGMOID, clipped_relu(1.5)]

few = settings(max_examples=40, deadline=None)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Network, Partition]:
    """A network and any partition of it, ranks that own nothing included."""
    widths = draw(st.lists(st.integers(1, 12), min_size=2, max_size=5))
    activations: list[Activation] = draw(st.lists(st.sampled_from(ACTIVATIONS), min_size=1, max_size=3))
    seed = draw(st.integers(0, 9_999))
    network = random_network(widths, activations, draw(st.sampled_from([0.0, 0.2, 0.8])), 0.2, seed)
    workers = draw(st.integers(1, 6))
    used = draw(st.integers(1, workers))
    rng = np.random.default_rng(seed)
    owners = tuple(rng.integers(0, used, width).astype(np.int32) for width in widths)
    return network, Partition(workers, owners, "any")


def parts_of(network: Network, partition: Partition) -> list[list[LayerPart]]:
    """For each layer, the part of each rank."""
    made = zip(network.layers, layer_arrays(network, partition), strict=True)
    return [[from_arrays(arrays, layer.activation) for arrays in ranks] for layer, ranks in made]


def finish(part: LayerPart, z: Float32s) -> Float32s:
    result = (z + part.bias[:, None]).astype(np.float32)
    part.activation.apply(result)
    return result


def run_layer(parts: list[LayerPart], held: list[Float32s]) -> list[Float32s]:
    """One layer by plain numpy: what each rank holds after it, from what each held before."""
    sent = {(r, send.rank): held[r][send.rows] for r, part in enumerate(parts) for send in part.sends}
    result = []
    for rank, part in enumerate(parts):
        z = part.local.matrix().toarray() @ held[rank]
        for source in part.sources:
            z += source.block.matrix().toarray() @ sent[source.rank, rank]
        result.append(finish(part, z))
    return result


@few
@given(cases())
def test_all_ranks_together_compute_the_network(case: tuple[Network, Partition]) -> None:
    network, partition = case
    layers = list(layer_arrays(network, partition))
    x = np.random.default_rng(0).normal(size=(network.inputs, 4)).astype(np.float32)
    read = [arrays["input_rows"] for arrays in layers[0]]
    parts = parts_of(network, partition)
    held = [finish(part, part.local.matrix().toarray() @ x[rows]) for part, rows in zip(parts[0], read, strict=True)]
    for layer in parts[1:]:
        held = run_layer(layer, held)
    expected = network.infer(x.T).T
    for rank, values in enumerate(held):
        np.testing.assert_allclose(values, expected[partition.owners[-1] == rank], rtol=1e-4, atol=1e-5)


@few
@given(cases())
def test_what_is_sent_is_what_is_expected_in_rank_order(case: tuple[Network, Partition]) -> None:
    network, partition = case
    for number, parts in enumerate(parts_of(network, partition)):
        sends = {(rank, send.rank): send.rows.size for rank, part in enumerate(parts) for send in part.sends}
        sources = {(s.rank, rank): s.block.shape[1] for rank, part in enumerate(parts) for s in part.sources}
        assert sends == sources
        assert not any(source == target for source, target in sends)
        assert number > 0 or not sends
        for part in parts:
            assert [send.rank for send in part.sends] == sorted(send.rank for send in part.sends)
            assert [source.rank for source in part.sources] == sorted(source.rank for source in part.sources)
            assert all((np.diff(send.rows) > 0).all() for send in part.sends)


@few
@given(cases())
def test_no_row_travels_that_is_not_read(case: tuple[Network, Partition]) -> None:
    network, partition = case
    report = quality(network, partition)
    layers = parts_of(network, partition)
    sends = [send for parts in layers for part in parts for send in part.sends]
    assert all(send.rows.size for send in sends)
    assert (sum(send.rows.size for send in sends), len(sends)) == (report.rows_sent, report.pairs)
    for parts in layers:
        for part in parts:
            assert all((np.bincount(s.block.indices, minlength=s.block.shape[1]) > 0).all() for s in part.sources)
    first = next(iter(layer_arrays(network, partition)))
    assert sum(arrays["input_rows"].size for arrays in first) == report.input_rows_read
    assert all((np.diff(arrays["input_rows"]) > 0).all() for arrays in first)


@few
@given(cases())
def test_every_weight_is_held_once(case: tuple[Network, Partition]) -> None:
    network, partition = case
    for layer, parts in zip(network.layers, parts_of(network, partition), strict=True):
        held = sum(part.local.nnz + sum(source.block.nnz for source in part.sources) for part in parts)
        assert held == layer.weights.nnz
        assert sum(part.rows for part in parts) == layer.outputs
        bytes_of_weights = held * 8
        assert sum(part.memory_bytes for part in parts) >= bytes_of_weights


def test_whether_zero_stays_zero_is_asked_of_the_rows_of_the_rank() -> None:
    bias = np.array([0, 0, 1, 0], np.float32)
    network = Network([Layer(sp.eye_array(4, format="csr"), bias, RELU)])
    partition = Partition(2, (np.zeros(4, np.int32), np.array([0, 0, 1, 1], np.int32)), "any")
    assert [part.keeps_zero for part in parts_of(network, partition)[0]] == [True, False]


def test_a_partition_that_does_not_fit_is_refused() -> None:
    network = random_network((6, 7, 5))
    with pytest.raises(PlanError, match="sizes"):
        next(layer_arrays(network, Partition(2, (np.zeros(3, np.int32),), "any")))


def test_more_workers_than_the_backend_runs_are_refused() -> None:
    check_workers(8, 8)
    check_workers(9, None)
    with pytest.raises(PlanError, match="9 workers are more than the 8"):
        check_workers(9, 8)


Change = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
CHANGES: dict[str, Change] = {
    "shorter": lambda array: array[:-1],
    "longer": lambda array: np.concatenate([array, array[-1:]]),
    "empty": lambda array: array[:0],
    "negative": lambda array: -1 - array,
    "large": lambda array: (array + 2**30).astype(array.dtype),
    "deeper": lambda array: array[None],
    "flat": lambda array: array.ravel(),
    "scalar": lambda array: np.zeros((), array.dtype),
    "of floats": lambda array: array.astype(np.float64) + 0.5,
    "of text": lambda array: np.full(array.shape, 7, np.uint8),
}


def middle_arrays() -> Arrays:
    """The arrays of rank 1 of the second layer: it has a local block, sources and sends."""
    network = random_network((10, 12, 12), density=0.6)
    return list(layer_arrays(network, make_partition(network, 3, "random", 1)))[1][1]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", sorted(middle_arrays()))
def test_damaged_arrays_are_refused_or_still_make_a_sound_part(name: str, change: str) -> None:
    arrays = middle_arrays()
    arrays[name] = CHANGES[change](arrays[name])
    try:
        part = from_arrays(arrays, RELU)
    except WireError:
        return
    if name == "local.width":
        # Whether it fits is seen beside the layer before.
        return
    held = np.ones((part.local.shape[1], 2), np.float32)
    z = part.local.matrix() @ held
    for source in part.sources:
        assert source.rank >= 0
        z += source.block.matrix() @ np.ones((source.block.shape[1], 2), np.float32)
    assert finish(part, z).shape == (part.rows, 2)
    assert all(send.rank >= 0 and held[send.rows].shape == (send.rows.size, 2) for send in part.sends)
    assert sum(send.rows.size for send in part.sends) == arrays["send.rows"].size


@pytest.mark.parametrize("name", sorted(middle_arrays()))
def test_missing_arrays_are_refused(name: str) -> None:
    arrays = middle_arrays()
    del arrays[name]
    with pytest.raises(WireError, match=name):
        from_arrays(arrays, RELU)
