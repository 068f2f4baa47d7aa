"""Inputs from handwritten digits."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.sparse as sp

from fsdcore.errors import InputError, MissingExtraError
from fsdcore.network.generate import digits

pytest.importorskip("sklearn", reason="needs scikit-learn")


def same(one: sp.csr_array, other: sp.csr_array) -> bool:
    return one.shape == other.shape and sp.csr_array(one - other).count_nonzero() == 0


@pytest.mark.parametrize("neurons", [64, 100, 256, 1024, 4096, 65536])
def test_samples_are_binary_and_none_is_empty(neurons: int) -> None:
    x = digits(20, neurons)
    assert x.shape == (20, neurons)
    assert x.dtype == np.float32
    assert x.indices.dtype == np.int32
    assert x.has_canonical_format
    assert set(x.data) == {1.0}
    assert np.diff(x.indptr).min() > 0


def test_density_is_near_that_of_the_official_inputs() -> None:
    assert 0.08 < digits(1797, 1024).nnz / (1797 * 1024) < 0.2


def test_no_digit_is_lost_even_in_the_smallest_pictures() -> None:
    assert np.diff(digits(1797, 64).indptr).min() > 0


def test_the_seed_decides_the_order_and_fewer_samples_are_the_first_ones() -> None:
    many = digits(2500, 256, seed=3)
    assert same(many, digits(2500, 256, seed=3))
    assert not same(many, digits(2500, 256, seed=4))
    assert same(sp.csr_array(many[:1900]), digits(1900, 256, seed=3))


def test_the_first_round_has_every_digit_and_the_next_has_them_shifted() -> None:
    x = digits(2 * 1797, 1024)
    sizes = np.diff(x.indptr)
    # A shift moves pixels and loses none.
    np.testing.assert_array_equal(np.sort(sizes[:1797]), np.sort(sizes[1797:]))
    first = {row.indices.tobytes() for row in x[:1797]}
    again = sum(row.indices.tobytes() in first for row in x[1797:])
    assert again < 1797 // 8


def test_larger_pictures_show_the_same() -> None:
    small = digits(50, 1024).toarray().reshape(50, 32, 32)
    large = digits(50, 4096).toarray().reshape(50, 32, 2, 32, 2).mean(axis=(2, 4))
    assert np.abs(small - large).mean() < 0.05


@pytest.mark.parametrize("neurons", [0, -1, 1, 49, 1000, 2048])
def test_not_a_square_is_refused(neurons: int) -> None:
    with pytest.raises(InputError, match="neurons must be the square of 8 or more"):
        digits(3, neurons)


def test_no_samples_are_refused() -> None:
    with pytest.raises(InputError, match="samples must be 1 or more, not 0"):
        digits(0, 64)


def test_without_scikit_learn_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fsd-inference\[demo\]'"):
        digits(3, 64)
