"""Comparing outputs with those of the oracle."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

__all__ = ["Difference", "compare"]


class Difference(NamedTuple):
    """One output that differs; indices from 0."""

    sample: int
    neuron: int
    actual: float
    expected: float

    def __str__(self) -> str:
        return f"sample {self.sample}, neuron {self.neuron}: {self.actual:g} instead of {self.expected:g}"


def compare(actual: Any, expected: Any, rtol: float = 1e-3, atol: float = 1e-3, most: int = 10) -> list[Difference]:
    """The first differences of two `(samples, neurons)` matrices, sparse or dense, by sample and neuron.

    Values differ if ``|actual - expected| > atol + rtol * |expected|``, or if one of them is not a number. The sums of
    a run are taken in another order than the oracle's, so the last bits may differ.
    """
    a, e = sp.csr_array(actual), sp.csr_array(expected)
    if a.shape != e.shape:
        raise ValueError(f"outputs have shape {a.shape}, expected {e.shape}")
    gap = sp.coo_array(a - e)
    wanted = np.asarray(e[gap.row, gap.col]).ravel() if gap.nnz else np.empty(0, np.float32)
    wrong = np.flatnonzero(~(np.abs(gap.data) <= atol + rtol * np.abs(wanted)))
    order = wrong[np.lexsort((gap.col[wrong], gap.row[wrong]))][:most]
    return [_difference(a, e, int(gap.row[i]), int(gap.col[i])) for i in order]


def _difference(actual: sp.csr_array, expected: sp.csr_array, sample: int, neuron: int) -> Difference:
    return Difference(sample, neuron, float(actual[sample, neuron]), float(expected[sample, neuron]))
