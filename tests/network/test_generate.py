"""The generator of Graph Challenge networks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp

from fsdcore.errors import InputError
from fsdcore.network.activations import clipped_relu
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Layer
from tests.shared_data import official_indices


def outputs_of(layer: Layer) -> npt.NDArray[np.int64]:
    """The outputs that each input feeds, ascending, `(neurons, 32)`."""
    by_input = sp.csr_array(layer.weights.T)
    by_input.sort_indices()
    return by_input.indices.reshape(layer.inputs, 32).astype(np.int64)


def same(one: sp.csr_array, other: sp.csr_array) -> bool:
    return one.shape == other.shape and sp.csr_array(one - other).count_nonzero() == 0


def base_layer(neurons: int, j: int) -> npt.NDArray[np.int64]:
    inputs = np.arange(neurons)[:, None, None]
    steps = np.array([0, -(2**j)])[:, None] + neurons // 16 * np.arange(16)
    return np.sort((inputs + steps).reshape(neurons, 32) % neurons, axis=1)


def is_renumbered_base(block: npt.NDArray[np.int64]) -> bool:
    """Whether the layers are the base layers, the inputs of all renumbered in one way.

    Inputs that are equal modulo N / 16 feed the same outputs, so the number is known up to that.
    """
    neurons = block.shape[1]
    rows = {row.tobytes(): number for number, row in enumerate(base_layer(neurons, 0)[: neurons // 16])}
    numbers = np.array([rows.get(row.tobytes(), -1) for row in block[0]])
    if numbers.min() < 0 or set(np.bincount(numbers, minlength=neurons // 16)) != {16}:
        return False
    return all((layer == base_layer(neurons, j)[numbers]).all() for j, layer in enumerate(block))


@pytest.mark.parametrize("neurons", [64, 128, 512, 1024, 4096])
def test_first_block_is_the_base_and_later_ones_renumber_it(neurons: int) -> None:
    depth = neurons.bit_length() - 5
    layers = [outputs_of(layer) for layer in radixnet(neurons, 3 * depth, seed=5, bias=-0.3).layers]
    for j in range(depth):
        np.testing.assert_array_equal(layers[j], base_layer(neurons, j))
    for block in range(3):
        assert is_renumbered_base(np.stack(layers[block * depth : (block + 1) * depth]))
    assert (layers[depth] != layers[0]).any()
    assert (layers[depth] != layers[2 * depth]).any()


@pytest.mark.graph_challenge
def test_official_first_block_is_generated_exactly() -> None:
    for layer, expected in zip(radixnet(1024, 6).layers, official_indices()[:6], strict=True):
        np.testing.assert_array_equal(outputs_of(layer), expected)


@pytest.mark.graph_challenge
def test_every_official_block_has_the_generated_form() -> None:
    blocks = official_indices().reshape(20, 6, 1024, 32)
    assert all(is_renumbered_base(block) for block in blocks)


def test_every_neuron_reads_and_feeds_32_others() -> None:
    for layer in radixnet(256, 9, seed=1).layers:
        assert layer.weights.has_canonical_format
        assert set(np.diff(layer.weights.indptr)) == {32}
        assert set(np.bincount(layer.weights.indices)) == {32}
        assert set(layer.weights.data) == {np.float32(1 / 16)}
        assert layer.activation == clipped_relu(32)


def test_a_neuron_of_the_first_layer_reaches_all_within_one_block() -> None:
    reached = sp.csr_array(np.eye(1, 1024, dtype=np.float32))
    for layer in radixnet(1024, 6).layers:
        reached = sp.csr_array(reached @ layer.weights.T)
    assert reached.nnz == 1024


@pytest.mark.parametrize(("neurons", "bias"), [(64, -0.3), (1024, -0.3), (4096, -0.35), (16384, -0.4), (65536, -0.45)])
def test_bias_is_the_official_one_of_the_size(neurons: int, bias: float) -> None:
    network = radixnet(neurons, 1)
    assert network.widths == (neurons, neurons)
    assert set(network.layers[0].bias) == {np.float32(bias)}


def test_bias_can_be_given() -> None:
    assert set(radixnet(2048, 1, bias=0.25).layers[0].bias) == {np.float32(0.25)}


def test_the_seed_decides() -> None:
    assert radixnet(64, 5, seed=3).fingerprint == radixnet(64, 5, seed=3).fingerprint
    assert radixnet(64, 5, seed=3).fingerprint != radixnet(64, 5, seed=4).fingerprint
    deep, shallow = radixnet(64, 7, seed=3), radixnet(64, 5, seed=3)
    assert all(same(a.weights, b.weights) for a, b in zip(deep.layers, shallow.layers, strict=False))


def test_layers_share_values_and_biases() -> None:
    first, *others = radixnet(128, 6).layers
    for layer in others:
        assert np.shares_memory(first.weights.data, layer.weights.data)
        assert np.shares_memory(first.bias, layer.bias)


def test_progress_is_told() -> None:
    heard: list[tuple[str, int, int]] = []

    class Listener:
        def progress(self, task: str, done: int, total: int) -> None:
            heard.append((task, done, total))

    radixnet(64, 3, observer=Listener())
    assert heard == [("generate layers", done, 3) for done in (1, 2, 3)]


@pytest.mark.parametrize(
    ("neurons", "layers", "says"),
    [
        (1000, 1, "neurons must be a power of two from 64 to 65536, not 1000"),
        (32, 1, "not 32"),
        (131072, 1, "not 131072"),
        (0, 1, "not 0"),
        (-64, 1, "not -64"),
        (64, 0, "layers must be 1 to 2147483647, not 0"),
        (2048, 1, "there is no official bias for 2048 neurons, only for 1024, 4096, 16384, 65536: give `bias`"),
    ],
)
def test_refused(neurons: int, layers: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        radixnet(neurons, layers)
