"""What the hypergraph of a layer is made of: rows that read the same inputs, and nets with the same pins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.partition.base import Owners

__all__ = ["Nets", "nets_of", "twins"]

IntArray = npt.NDArray[np.int64]
Marks = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Nets:
    """`pins` of each net, and how many inputs have just these pins."""

    pins: list[list[int]]
    weights: list[int]


def _codes(count: int) -> Marks:
    return np.random.default_rng(0).integers(0, 2**64, size=count, dtype=np.uint64)


def _marks(indptr: npt.NDArray[np.integer], indices: npt.NDArray[np.integer], size: int) -> Marks:
    """A 64-bit mark of each row's set of indices below `size`: the sum of a random code for each of them.

    Equal sets have equal marks. Should different ones have too (1 in 2^64 a pair), the partition is a little worse.
    """
    sums = np.zeros(indices.size + 1, np.uint64)
    np.cumsum(_codes(size)[indices], out=sums[1:])
    marks: Marks = sums[indptr[1:]] - sums[indptr[:-1]]
    return marks


def twins(weights: sp.csr_array, pieces: int) -> IntArray:
    """For each row the number of its cluster, from 0 without gaps: twins are rows that read the same columns.

    Twins belong on one rank, as what one reads the other reads. All twins of a row are one cluster, or as many of
    equal size as `pieces` says.
    """
    rows, columns = weights.shape
    marks = _marks(weights.indptr, weights.indices, columns)
    _, group, sizes = np.unique(marks, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    place = np.empty(rows, np.int64)
    place[order] = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    piece = place * np.minimum(pieces, sizes)[group] // sizes[group]
    return np.unique(group * rows + piece, return_inverse=True)[1].astype(np.int64)


def nets_of(weights: sp.csr_array, before: Owners | None) -> Nets:
    """The nets of ``weights`` `(outputs, inputs)`: one per input, its pins the rows that read it.

    With `before`, the owners of the inputs, vertex ``outputs + r`` stands for rank r and is a pin of what r owns. Nets
    of one pin cost nothing in any partition and are left out; equal ones are one net of their number as weight.
    """
    columns = sp.csc_array(weights)
    outputs = weights.shape[0]
    marks = _marks(columns.indptr, columns.indices, outputs)
    if before is not None:
        # The codes of the ranks must not be those of the rows.
        marks = marks + _codes(outputs + int(before.max(initial=0)) + 1)[outputs + before]
    read = np.flatnonzero(np.diff(columns.indptr) > (1 if before is None else 0))
    _, first, counts = np.unique(marks[read], return_index=True, return_counts=True)
    chosen = read[first]
    starts, ends = columns.indptr[chosen].tolist(), columns.indptr[chosen + 1].tolist()
    pins = [columns.indices[start:end].tolist() for start, end in zip(starts, ends, strict=True)]
    if before is not None:
        for net, owner in zip(pins, (outputs + before[chosen]).tolist(), strict=True):
            net.append(owner)
    return Nets(pins, counts.tolist())
