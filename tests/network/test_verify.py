"""Verification: right runs pass whatever the order of their sums, wrong ones do not, and overflow is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.errors import InputError
from fsdcore.network.activations import IDENTITY, RELU, SIGMOID, SOFTMAX, TANH, Activation, clipped_relu, leaky_relu
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Layer, Network
from fsdcore.network.verify import TOLERABLE, Rounding, verify
from fsdcore.testing import random_inputs, random_network
from tests.shared_data import official_inputs, official_network, trained_mnist

NETWORK = random_network((12, 16, 16, 10))
INPUTS = random_inputs(9, 12)
Floats = npt.NDArray[np.float32]


def in_another_order(network: Network, x: Floats, seed: int) -> Floats:
    """The network in float32, each sum in an order of its own, in blocks, the bias first or last."""
    random = np.random.default_rng(seed)
    y = x.astype(np.float32).T
    for layer in network.layers:
        weights, order = layer.weights.toarray(), random.permutation(layer.inputs)
        z = np.zeros((layer.outputs, y.shape[1]), np.float32)
        first = bool(random.integers(2))
        if first:
            z += layer.bias[:, None]
        for block in np.array_split(order, int(random.integers(1, 5))):
            part = np.zeros_like(z)
            for column in block:
                part += weights[:, column, None] * y[column]
            z += part
        if not first:
            z += layer.bias[:, None]
        y = layer.activation.of(z)
    return np.ascontiguousarray(y.T)


_ACTIVATIONS = [IDENTITY, RELU, clipped_relu(2), leaky_relu(0.1), leaky_relu(-0.5), SIGMOID, TANH]


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(_ACTIVATIONS), min_size=1, max_size=12), st.booleans())
def test_every_order_of_summation_is_right(seed: int, activations: list[Activation], softmax: bool) -> None:
    random = np.random.default_rng(seed)
    widths = [int(width) for width in random.integers(1, 24, len(activations) + 1)]
    kinds = [*activations[:-1], SOFTMAX] if softmax else activations
    layers = [
        Layer(random.normal(size=(after, before)) * (random.random((after, before)) < 0.6), random.normal(), kind)
        for before, after, kind in zip(widths, widths[1:], kinds, strict=False)
    ]
    network, x = Network(layers), random.normal(size=(5, widths[0])).astype(np.float32)
    verdict = verify(network, x, in_another_order(network, x, seed))
    assert verdict.right, verdict
    assert verify(network, x, network.infer(x)).right


@pytest.mark.parametrize("layers", [6, 12, 20, 24, 30])
def test_networks_that_double_an_error_in_each_layer_are_right_in_every_order(layers: int) -> None:
    network = radixnet(64, layers, bias=-0.3)
    x = (np.random.default_rng(layers).random((60, 64)) < 0.35).astype(np.float32)
    for seed in range(4):
        verdict = verify(network, x, in_another_order(network, x, seed))
        assert verdict.right, verdict


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array, sp.csc_array])
def test_outputs_may_be_sparse_or_dense(kind: Any) -> None:
    assert verify(NETWORK, INPUTS, kind(NETWORK.infer(INPUTS).toarray())).right


def test_a_value_that_was_changed_is_named() -> None:
    outputs = NETWORK.infer(INPUTS).toarray()
    sample = int(np.argmax(outputs.max(axis=1)))
    outputs[sample, 4] += 0.01 * outputs[sample].max()
    verdict = verify(NETWORK, INPUTS, outputs)
    assert (verdict.right, verdict.wrong) == (False, 1)
    assert (verdict.differences[0].sample, verdict.differences[0].neuron) == (sample, 4)
    assert "1 of " in str(verdict)
    assert f"sample {sample}, neuron 4: {outputs[sample, 4]:g} instead of" in str(verdict)


def moved(network: Network, x: Any, outputs: Any, count: int = 1000) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Outputs of which some that are well-conditioned are moved by 1 % of the largest of their sample."""
    rounding, sparse, places = Rounding(network), sp.csr_array(x), []
    for strip in rounding.strips(sparse.shape[0]):
        allowed = rounding.allowed(sparse[strip])
        found = np.argwhere(((allowed.values != 0) & ~allowed.ill).T)
        found[:, 0] += strip.start
        places.append(found)
    random = np.random.default_rng(0)
    drawn = random.permutation(np.concatenate(places))[:count]
    changed = sp.csr_array(outputs).toarray()
    largest = np.abs(changed).max(axis=1)
    changed[drawn[:, 0], drawn[:, 1]] += 0.01 * largest[drawn[:, 0]] * random.choice([-1.0, 1.0], len(drawn))
    return changed, drawn


def found_where_moved(network: Network, x: Any, outputs: Any) -> bool:
    """Whether the outputs are right, nearly all well-conditioned, and each of 1,000 that is moved is found."""
    verdict = verify(network, x, outputs)
    assert verdict.right
    assert verdict.ill_conditioned <= 0.01 * verdict.outputs
    changed, drawn = moved(network, x, outputs)
    return verify(network, x, changed).wrong == len(drawn) == 1000


@pytest.mark.graph_challenge
def test_on_the_official_network_each_change_is_found() -> None:
    network, x = official_network(), official_inputs(1000)
    assert found_where_moved(network, x, network.infer(x))


def test_on_a_trained_network_each_change_is_found() -> None:
    network, x, answers = trained_mnist()
    outputs = network.infer(x[:2000])
    assert np.array_equal(outputs.argmax(axis=1), answers[:2000])
    assert found_where_moved(network, x[:2000], outputs)


def test_what_is_ill_conditioned_is_counted_and_not_wrong() -> None:
    # Two large numbers that all but cancel, and then are made large again.
    cancels = Layer([[1.0, -1.0], [0.0, 1e-6]], 0.0, IDENTITY)
    network = Network([cancels, Layer(np.diag([1e3, 1.0]), 0.0, IDENTITY)])
    x = np.array([[1.0, 1.0 - 2.0**-24]])
    verdict = verify(network, x, np.zeros((1, 2)))
    assert verdict.ill_conditioned >= 1


def test_no_number_is_ever_right_unless_sums_overflow() -> None:
    outputs = NETWORK.infer(INPUTS).toarray()
    for wrong in (np.nan, np.inf, -np.inf):
        outputs[0, 0] = wrong
        assert verify(NETWORK, INPUTS, outputs).wrong == 1


@pytest.mark.parametrize("activation", [RELU, clipped_relu(2), IDENTITY])
def test_overflow_is_named_with_its_layer_and_is_not_wrong(activation: Activation) -> None:
    network = Network([Layer(np.full((4, 4), 1e30), 0.0, activation) for _ in range(3)])
    if activation.name == "clipped_relu":
        network = Network([Layer(np.full((4, 4), 3e38), 0.0, activation)])
    x = np.ones((2, 4))
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = network.infer(x)
    verdict = verify(network, x, outputs)
    assert verdict.right
    assert verdict.overflow == (1 if activation.name == "clipped_relu" else 2)
    assert f"sums of layer {verdict.overflow} are beyond float32" in str(verdict)


def test_samples_beside_one_that_overflows_are_judged_as_ever() -> None:
    network = Network([Layer(np.eye(3), 0.0, RELU), Layer(np.eye(3) * 1e30, 0.0, RELU)])
    x = np.array([[1e30, 1, 1], [1, 1, 1]])
    with np.errstate(over="ignore"):
        outputs = network.infer(x)
    assert verify(network, x, outputs).right
    outputs[1, 1] *= 1.01
    assert verify(network, x, outputs).wrong == 1


def test_what_is_tolerable_is_a_tenth_of_a_percent() -> None:
    assert TOLERABLE == 1e-3


@pytest.mark.parametrize("samples", [0, 1])
def test_a_network_of_nothing_is_right(samples: int) -> None:
    network = Network([Layer(np.zeros((0, 3)), 0.0, RELU)])
    assert verify(network, np.ones((samples, 3)), np.zeros((samples, 0))).right


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"outputs have shape \(8, 10\), those of the network \(9, 10\)"):
        verify(NETWORK, INPUTS, NETWORK.infer(INPUTS)[:8])


@pytest.mark.parametrize("activation", [RELU, IDENTITY, TANH, leaky_relu(0.01)], ids=str)
def test_values_that_vanish_are_right(activation: Activation) -> None:
    rng = np.random.default_rng(3)
    layers = [Layer(rng.random((64, 64)).astype(np.float32) * np.float32(0.001), 0, activation) for _ in range(24)]
    network, inputs = Network(layers), rng.random((50, 64)).astype(np.float32)
    assert verify(network, inputs, network.infer(inputs)).right


def test_products_below_float32_are_allowed_for() -> None:
    network = Network([Layer(np.full((1, 40), 1e-23, np.float32), 0, RELU)])
    inputs = np.full((1, 40), 1e-22, np.float32)
    assert verify(network, inputs, network.infer(inputs)).right


@pytest.mark.parametrize("given", [None, "net.safetensors"])
def test_what_is_no_network_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="this takes a Network"):
        verify(given, np.ones((1, 1)), np.ones((1, 1)))
