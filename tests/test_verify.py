"""Comparing with the oracle: what differs is found, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.verify import compare

EXPECTED = np.array([[0, 1, 2], [0, 0, 3]], np.float32)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array, sp.coo_array])
def test_equal_outputs_have_no_difference(kind: type) -> None:
    assert compare(kind(EXPECTED), sp.csr_array(EXPECTED)) == []


@given(st.integers(0, 1), st.integers(0, 2), st.sampled_from([5.0, -1.0, float("nan"), float("inf")]))
def test_a_difference_is_named_by_sample_and_neuron(sample: int, neuron: int, value: float) -> None:
    actual = EXPECTED.copy()
    actual[sample, neuron] = value
    (difference,) = compare(actual, EXPECTED)
    assert (difference.sample, difference.neuron, difference.expected) == (sample, neuron, EXPECTED[sample, neuron])
    assert str(difference).startswith(f"sample {sample}, neuron {neuron}: {value:g} instead of")


def test_the_last_bits_may_differ() -> None:
    assert compare(EXPECTED * np.float32(1 + 1e-5), EXPECTED) == []
    assert compare(EXPECTED * np.float32(1.01), EXPECTED)


def test_the_first_differences_come_first_and_not_all_of_many() -> None:
    found = compare(np.ones((5, 7)), np.zeros((5, 7)), most=3)
    assert [(item.sample, item.neuron) for item in found] == [(0, 0), (0, 1), (0, 2)]


def test_shapes_must_be_the_same() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 3\), expected \(2, 3\)"):
        compare(EXPECTED[:1], EXPECTED)
