"""Networks: the oracle against dense numpy, canonical form, fingerprints, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.errors import InputError
from fsdcore.network.activations import (
    IDENTITY,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    Activation,
    clipped_relu,
    leaky_relu,
)
from fsdcore.network.network import Layer, Network, as_inputs
from tests.shared_data import graph_challenge_data, official_network

ELEMENTWISE = [IDENTITY, RELU, clipped_relu(1.5), leaky_relu(0.1), SIGMOID, TANH]
EYE = np.eye(3, dtype=np.float32)


def sparse_matrix(random: np.random.Generator, rows: int, columns: int, density: float = 0.4) -> Any:
    keep = random.random((rows, columns)) < density
    return np.where(keep, random.normal(size=(rows, columns)), 0).astype(np.float32)


def make_network(seed: int, widths: list[int], activations: list[Activation], bias: float) -> Network:
    random = np.random.default_rng(seed)
    layers = []
    for inputs, outputs, activation in zip(widths[:-1], widths[1:], activations, strict=True):
        weights = sparse_matrix(random, outputs, inputs)
        biases = (random.normal(size=outputs) * 0.2 + bias).astype(np.float32)
        layers.append(Layer(weights, biases, activation))
    return Network(layers)


def dense_reference(network: Network, x: Any) -> Any:
    y = np.asarray(x, dtype=np.float64).T
    for layer in network.layers:
        z = layer.weights.toarray().astype(np.float64) @ y + layer.bias.astype(np.float64)[:, None]
        y = layer.activation.of(z.astype(np.float32)).astype(np.float64)
    return y.T


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    samples=st.integers(0, 5),
    bias=st.sampled_from([-0.3, 0.0, 0.3]),
    data=st.data(),
)
def test_infer_equals_dense_numpy(seed: int, widths: list[int], samples: int, bias: float, data: st.DataObject) -> None:
    activations = [data.draw(st.sampled_from(ELEMENTWISE)) for _ in widths[2:]]
    activations.append(data.draw(st.sampled_from([*ELEMENTWISE, SOFTMAX])))
    network = make_network(seed, widths, activations, bias)
    x = sparse_matrix(np.random.default_rng(seed + 1), samples, widths[0])
    expected = dense_reference(network, x)
    np.testing.assert_allclose(network.infer(x), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(network.infer(sp.csr_array(x)).toarray(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("activation", [*ELEMENTWISE, SOFTMAX], ids=str)
@pytest.mark.parametrize("bias", [-0.5, 0.0, 0.5])
def test_every_activation_with_empty_rows_and_rectangular_layers(activation: Activation, bias: float) -> None:
    weights = np.array([[1, 0, -2, 0], [0, 0, 0, 0], [0, 3, 0, 0.5]], dtype=np.float32)
    network = Network([Layer(weights, bias, activation)])
    x = np.array([[1, 2, 3, 4], [0, 0, 0, 0], [-1, 0, 1, 0]], dtype=np.float32)
    np.testing.assert_allclose(network.infer(x), dense_reference(network, x), rtol=1e-6, atol=1e-7)


def test_outputs_are_of_the_kind_of_the_inputs() -> None:
    network = Network([Layer(EYE, 0.0, RELU)])
    dense = network.infer([[1, -1, 2]])
    sparse = network.infer(sp.coo_array([[1, -1, 2]]))
    assert isinstance(dense, np.ndarray)
    assert dense.dtype == np.float32
    assert isinstance(sparse, sp.csr_array)
    assert sparse.dtype == np.float32
    assert sparse.nnz == 2


def test_a_dead_sample_wakes_where_the_bias_is_positive() -> None:
    network = Network([Layer(EYE, np.array([0.5, 0.0, -0.5]), RELU)])
    np.testing.assert_array_equal(network.infer(np.zeros((1, 3))), [[0.5, 0.0, 0.0]])
    assert not network.layers[0].keeps_zero


def test_inputs_in_any_order_are_read_and_not_changed() -> None:
    parts = (np.array([1.0, 2.0, 3.0]), np.array([2, 0, 2]), np.array([0, 3]))
    x = sp.csr_array(parts, shape=(1, 3))
    result = Network([Layer(EYE, 0.0, IDENTITY)]).infer(x)
    np.testing.assert_array_equal(result.toarray(), [[2, 0, 4]])
    np.testing.assert_array_equal(x.indices, [2, 0, 2])


def test_weights_are_brought_into_one_form() -> None:
    rows, columns = np.array([1, 0, 1, 0]), np.array([2, 1, 2, 0])
    scattered = sp.coo_array((np.array([1.0, 5.0, 2.0, 0.0]), (rows, columns)), shape=(2, 3))
    weights = Layer(scattered, 0.0, RELU).weights
    np.testing.assert_array_equal(weights.toarray(), [[0, 5, 0], [0, 0, 3]])
    assert weights.has_canonical_format
    assert weights.nnz == 2
    assert [str(a.dtype) for a in (weights.data, weights.indices, weights.indptr)] == ["float32", "int32", "int32"]


def test_mixed_index_types_become_one() -> None:
    weights = sp.csr_array(EYE)
    weights.indptr = weights.indptr.astype(np.int64)
    layer = Layer(weights, 0.0, RELU)
    assert [str(a.dtype) for a in (layer.weights.indices, layer.weights.indptr)] == ["int32", "int32"]
    assert weights.indptr.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_a_layer_was_made_of_may_be_changed_later(dtype: type) -> None:
    given, bias = sp.csr_array(EYE.astype(dtype)), np.ones(3, dtype=np.dtype(dtype))
    network = Network([Layer(given, bias, RELU)])
    before, x = network.fingerprint, np.ones((2, 3))
    outputs = network.infer(x)
    for array in (given.data, given.indices, given.indptr, bias):
        array[:] = 0
    assert np.array_equal(network.infer(x), outputs)
    assert Network(network.layers).fingerprint == before


def test_the_arrays_of_a_layer_are_read_only() -> None:
    layer = Layer(sp.csr_array(EYE), 0.0, RELU)
    for array in (layer.weights.data, layer.weights.indices, layer.weights.indptr, layer.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_arrays_that_nobody_can_write_are_shared() -> None:
    values = np.ones(3, np.float32)
    values.setflags(write=False)
    weights = sp.csr_array((values, np.arange(3), np.arange(4)))
    shared = [np.shares_memory(Layer(weights, 0.0, RELU).weights.data, weights.data)]
    weights.data = np.ones(3, np.float32)[:]
    weights.data.setflags(write=False)
    # Its base can be written.
    shared.append(np.shares_memory(Layer(weights, 0.0, RELU).weights.data, weights.data))
    assert shared == [True, False]


def test_an_activation_may_be_named_and_a_bias_left_out() -> None:
    layer = Layer(EYE, None, "tanh")
    assert (layer.activation, layer.bias.tolist()) == (TANH, [0.0, 0.0, 0.0])


class Stubborn:
    """What reads as a matrix and will not, as a tensor that requires grad."""

    shape = (2, 2)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise self._error

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("kind", [RuntimeError, TypeError, ValueError, AttributeError])
def test_what_does_not_become_an_array_says_why(kind: type[Exception]) -> None:
    given = Stubborn(kind("use tensor.detach()"))
    for make in (
        lambda: Layer(given, 0.0, RELU),
        lambda: Layer(EYE, given, RELU),
        lambda: Network([Layer(np.eye(2), 0.0, RELU)]).infer(given),
    ):
        with pytest.raises(InputError, match=r"use tensor\.detach\(\)"):
            make()


def test_sizes() -> None:
    network = make_network(0, [5, 3, 4], [RELU, TANH], 0.0)
    assert (len(network), network.inputs, network.outputs, network.widths) == (2, 5, 4, (5, 3, 4))
    assert network.nonzeros == sum(layer.weights.nnz for layer in network.layers)


def changed(**parts: Any) -> Network:
    first = {"weights": EYE, "bias": np.array([0.0, 1.0, 2.0]), "activation": leaky_relu(0.1)}
    return Network([Layer(**{**first, **parts}), Layer(EYE, 0.0, RELU)])


def test_fingerprint_follows_the_content_not_the_name_or_storage() -> None:
    plain = changed()
    assert plain.fingerprint == changed(weights=sp.coo_array(EYE.astype(np.float64))).fingerprint
    assert plain.fingerprint == Network(plain.layers, name="other").fingerprint
    assert len(plain.fingerprint) == 64


@pytest.mark.parametrize(
    "parts",
    [
        {"weights": EYE * 2},
        {"weights": EYE[::-1]},
        {"weights": np.hstack([EYE, np.zeros((3, 1))])},
        {"bias": np.array([0.0, 1.0, 3.0])},
        {"activation": leaky_relu(0.1000001)},
        {"activation": IDENTITY},
    ],
    ids=["values", "places", "width", "bias", "parameter", "activation"],
)
def test_fingerprint_changes_with_every_part(parts: dict[str, Any]) -> None:
    assert changed().fingerprint != changed(**parts).fingerprint


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Layer("text", 0.0, RELU), "weights must be real numbers, not the str 'text'"),
        (lambda: Layer(None, 0.0, RELU), "weights must be real numbers, not NoneType"),
        (lambda: Layer(np.array([["a"]]), 0.0, RELU), "weights must be real numbers, not <U1"),
        (lambda: Layer(EYE * 1j, 0.0, RELU), "weights must be real numbers, not complex"),
        (lambda: Layer(sp.csr_array(EYE * 1j), 0.0, RELU), "weights must be real numbers, not complex"),
        (lambda: Layer(np.ma.array(EYE, mask=EYE == 0), 0.0, RELU), "weights must not be masked"),
        (lambda: Layer((4, 3), 0.0, RELU), "weights must have 2 dimensions (outputs, inputs), not 1"),
        (lambda: Layer(EYE, 0.0, None), "activation must be one of identity, relu, "),  # type: ignore[arg-type]
        (lambda: Layer(EYE, 0.0, np.tanh), "activation must be one of identity, relu, "),  # type: ignore[arg-type]
        (lambda: Layer(EYE, 0.0, clipped_relu), "not clipped_relu"),  # type: ignore[arg-type]
        (lambda: Layer(EYE, 0.0, "clipped_relu"), "activation clipped_relu takes a bound"),
        (lambda: Layer(EYE, 0.0, "rely"), "unknown activation 'rely'"),
        (lambda: clipped_relu("high"), "the parameter of an activation must be a number"),  # type: ignore[arg-type]
        (lambda: Network(Layer(EYE, 0.0, RELU)), "a network is made of a list of layers"),  # type: ignore[arg-type]
        (lambda: Network(7), "a network is made of a list of layers, not of a int"),  # type: ignore[arg-type]
        (lambda: Network([EYE]), "layer 1 is a ndarray; make it a Layer"),  # type: ignore[list-item]
        (lambda: Network([Layer(EYE, 0.0, RELU)], name=3), "name of a network must be a text"),  # type: ignore[arg-type]
        (lambda: Layer(np.ones(3), 0.0, RELU), "weights must have 2 dimensions (outputs, inputs), not 1"),
        (lambda: Layer(EYE * np.nan, 0.0, RELU), "weights must be finite"),
        (lambda: Layer([[1e300]], 0.0, RELU), "weights must be finite"),
        (lambda: Layer(EYE, np.zeros(2), RELU), "bias has shape (2,), the weights have 3 outputs"),
        (lambda: Layer(EYE, np.inf, RELU), "bias must be finite"),
        (lambda: Layer(EYE, 1e300, RELU), "bias must be finite"),
        (lambda: Layer(EYE, "high", RELU), "bias must be real numbers, not the str 'high'"),
        (lambda: Layer(EYE, np.ma.array([1, 2, 3], mask=[False, True, False]), RELU), "bias must not be masked"),
        (lambda: Network([]), "a network needs at least one layer"),
        (
            lambda: Network([Layer(EYE, 0.0, RELU), Layer(np.ones((2, 4)), 0.0, RELU)]),
            "layer 2 reads 4 neurons, layer 1 computes 3",
        ),
        (
            lambda: Network([Layer(EYE, 0.0, SOFTMAX), Layer(EYE, 0.0, RELU)]),
            "layer 1 has softmax, which is allowed on the last layer only",
        ),
        (lambda: as_inputs(np.ones(3), 3), "inputs must have 2 dimensions (samples, neurons), not 1"),
        (lambda: as_inputs([["a", "b"]], 2), "inputs must be real numbers, not <U1"),
        (lambda: as_inputs([[1, 2], [1]], 2), "inputs cannot be read as numbers: "),
        (lambda: as_inputs("inputs.npz", 2), "a file is read with load_inputs"),
        (lambda: as_inputs(np.zeros((1, 2), "M8[s]"), 2), "inputs must be real numbers, not datetime64[s]"),
        (lambda: as_inputs(np.array([[1, "2"]], object), 2), "inputs must be real numbers, not object"),
        (lambda: as_inputs((row for row in EYE), 3), "inputs must be real numbers, not generator"),
        (lambda: as_inputs([[np.nan, 1]], 2), "inputs must be finite"),
        (lambda: as_inputs([[1e300, 1]], 2), "inputs must be finite"),
        (lambda: as_inputs(np.ones((2, 4)), 3), "inputs have 4 neurons per sample, the network reads 3"),
    ],
)
def test_refused_in_one_line(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.graph_challenge
def test_the_oracle_gives_the_official_answer() -> None:
    folder = graph_challenge_data()
    with np.load(folder / "images-10000.npz") as images:
        parts = (np.ones(images["indices"].size), images["indices"].astype(np.int32), images["indptr"])
        x = sp.csr_array(parts, shape=tuple(images["shape"]))[:1000]
    truth = np.loadtxt(folder / "categories.tsv", dtype=np.int64) - 1
    outputs = official_network().infer(x)
    np.testing.assert_array_equal(np.flatnonzero(np.diff(outputs.indptr)), truth[truth < 1000])


def test_whoever_changes_a_layers_matrix_does_not_change_the_layer() -> None:
    network = Network([Layer(np.eye(4, dtype=np.float32), 0, "relu")])
    weights: Any = network.layers[0].weights
    weights.indices = np.array([0, 1, 2, 10**9], np.int32)
    weights.data = weights.data * 3
    weights = network.layers[0].weights
    weights.resize(2, 2)
    assert (network.infer(np.ones((1, 4))) == np.ones((1, 4))).all()


def test_memory_that_is_shared_through_a_view_is_not_the_networks() -> None:
    values = np.ones(4, np.float32)
    given: Any = sp.csr_array(np.eye(4, dtype=np.float32))
    given.data = memoryview(values)  # type: ignore[arg-type]
    layer = Layer(given, 0, "relu")
    values[:] = 5
    assert layer.weights.data.tolist() == [1.0] * 4
