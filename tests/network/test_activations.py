"""Activations: what they compute, and which are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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

REFERENCES: list[tuple[Activation, Callable[[Any], Any]]] = [
    (IDENTITY, lambda z: z),
    (RELU, lambda z: np.maximum(z, 0)),
    (clipped_relu(2.5), lambda z: np.minimum(np.maximum(z, 0), 2.5)),
    (leaky_relu(0.25), lambda z: np.where(z < 0, 0.25 * z, z)),
    (leaky_relu(-2), lambda z: np.where(z < 0, -2 * z, z)),
    (SIGMOID, lambda z: 1 / (1 + np.exp(-z))),
    (TANH, np.tanh),
    (SOFTMAX, lambda z: np.exp(z - z.max(axis=0)) / np.exp(z - z.max(axis=0)).sum(axis=0)),
]
EVERY = [activation for activation, _ in REFERENCES]

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-80, 80, width=32),
)


@pytest.mark.parametrize(("activation", "reference"), REFERENCES, ids=[str(activation) for activation, _ in REFERENCES])
@settings(deadline=None, max_examples=50)
@given(z=matrices)
def test_equals_its_definition_in_float64(activation: Activation, reference: Callable[[Any], Any], z: Any) -> None:
    result = activation.of(z)
    assert result.dtype == np.float32
    assert result.shape == z.shape
    np.testing.assert_allclose(result, reference(z.astype(np.float64)), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("activation", EVERY, ids=str)
def test_apply_works_in_place_and_of_leaves_its_argument(activation: Activation) -> None:
    z = np.array([[-3.0, 0.5], [4.0, -0.0]], dtype=np.float32)
    before = z.copy()
    result = activation.of(z)
    np.testing.assert_array_equal(z, before)
    activation.apply(z)
    np.testing.assert_array_equal(z, result)


@pytest.mark.parametrize("activation", EVERY, ids=str)
def test_nothing_overflows_at_the_ends_of_float32(activation: Activation) -> None:
    largest = np.finfo(np.float32).max
    result = activation.of(np.array([[-largest / 4], [largest / 16], [0.0]], dtype=np.float32))
    assert np.isfinite(result).all()


@pytest.mark.parametrize("activation", EVERY, ids=str)
def test_no_neurons_and_no_samples_are_fine(activation: Activation) -> None:
    assert activation.of(np.zeros((0, 3), dtype=np.float32)).shape == (0, 3)
    assert activation.of(np.zeros((3, 0), dtype=np.float32)).shape == (3, 0)


@pytest.mark.parametrize("activation", EVERY, ids=str)
@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
def test_keeps_zero_is_what_happens_to_a_zero_sample(activation: Activation, bias: float) -> None:
    biases = np.array([bias, 0.0], dtype=np.float32)
    assert activation.keeps_zero(biases) == (not activation.of(biases[:, None]).any())


def test_softmax_alone_is_not_elementwise() -> None:
    assert [activation for activation in EVERY if not activation.elementwise] == [SOFTMAX]


def test_activations_are_values_with_names() -> None:
    assert Activation("clipped_relu", 32.0) == clipped_relu(32)
    assert str(clipped_relu(32)) == "clipped_relu(32)"
    assert str(leaky_relu(0.5)) == "leaky_relu(0.5)"
    assert str(RELU) == "relu"


@pytest.mark.parametrize(
    ("name", "parameter", "says"),
    [
        ("swish", 0.0, "unknown activation 'swish'; known: identity, relu, clipped_relu"),
        ("relu", 1.0, "relu takes no parameter"),
        ("leaky_relu", float("nan"), "the slope of leaky_relu must be a finite number"),
        ("leaky_relu", 1e300, "the slope of leaky_relu must be a finite number"),
        ("clipped_relu", float("inf"), "the bound of clipped_relu must be a finite number"),
        ("clipped_relu", 0.0, "the bound of clipped_relu must be above 0"),
        ("clipped_relu", -1.0, "the bound of clipped_relu must be above 0"),
        ("clipped_relu", 1e-300, "the bound of clipped_relu must be above 0"),
    ],
)
def test_refused(name: str, parameter: float, says: str) -> None:
    with pytest.raises(InputError) as caught:
        Activation(name, parameter)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
