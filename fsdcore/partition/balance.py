"""Balance of a layer: what is allowed, what is possible, and how a partition that misses it is repaired."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.partition.base import Owners

__all__ = ["IMBALANCE", "largest_load", "rebalance", "share_out"]

IntArray = npt.NDArray[np.int64]

IMBALANCE = 0.03
"""How far the largest load may be over the mean."""


def largest_load(loads: IntArray, workers: int) -> int:
    """The largest load a rank may have: 3 % over the mean, or what no partition can stay below if that is more.

    `loads`: int64 `(rows,)`, nonzeros. Of the ``j P + 1`` heaviest rows some rank has ``j + 1``.
    """
    heaviest = np.sort(loads)[::-1]
    sums = np.concatenate([[0], np.cumsum(heaviest)])
    j = np.arange(0, -(-loads.size // workers))
    least = int((sums[j * workers + 1] - sums[j * workers - j]).max(initial=0))
    total = int(sums[-1])
    return max(least, -(-total // workers), int((1 + IMBALANCE) * total / workers))


def share_out(owners: Owners, rows: IntArray, workers: int) -> None:
    """Give `rows`, which have no nonzeros, to the ranks with the fewest neurons, in place. Other rows have owners."""
    counts = np.bincount(np.delete(owners, rows), minlength=workers).tolist()
    ranks = [(count, rank) for rank, count in enumerate(counts)]
    heapq.heapify(ranks)
    for row in rows.tolist():
        count, rank = ranks[0]
        owners[row] = rank
        heapq.heapreplace(ranks, (count + 1, rank))


def rebalance(weights: sp.csr_array, owners: Owners, before: Owners | None, workers: int, limit: int) -> Owners:
    """`owners` with rows moved until no rank has more than `limit` nonzeros, or nothing brings it nearer.

    Each step takes a row off the fullest rank, to where it costs the fewest rows sent per nonzero moved. If it fits
    nowhere, the move or exchange is taken that leaves the least on the fuller of its two ranks.
    """
    work = _Repair(weights, owners, before, workers, limit)
    for _ in range(weights.shape[0]):
        if work.loads.max() <= limit or not work.step():
            break
    return work.owners


class _Repair:
    def __init__(self, weights: sp.csr_array, owners: Owners, before: Owners | None, workers: int, limit: int) -> None:
        self.owners = owners.copy()
        self._limit = limit
        self._sizes = np.diff(weights.indptr).astype(np.int64)
        self._reads = sp.csr_array(
            (np.ones(weights.nnz, np.int32), weights.indices, weights.indptr), shape=weights.shape
        )
        self.loads = np.bincount(owners, self._sizes, workers).astype(np.int64)
        # For each input and rank, the rows of the rank that read it, and 1 more if the rank owns it.
        self._pins = np.zeros((weights.shape[1], workers), np.int32)
        np.add.at(self._pins, (weights.indices, np.repeat(owners, self._sizes)), 1)
        if before is not None:
            self._pins[np.arange(before.size), before] += 1

    def step(self) -> bool:
        """Take load off the fullest rank; whether there was a way."""
        full = int(np.argmax(self.loads))
        rows = np.flatnonzero((self.owners == full) & (self._sizes > 0))
        return self._cheapest(full, rows) or self._level(full, rows)

    def _cheapest(self, full: int, rows: IntArray) -> bool:
        fits = self.loads[None, :] + self._sizes[rows, None] <= self._limit
        fits[:, full] = False
        if not fits.any():
            return False
        reads = self._reads[rows]
        cost = (
            reads @ (self._pins == 0).astype(np.int32) - (reads @ (self._pins[:, full] == 1).astype(np.int32))[:, None]
        )
        each = np.where(fits, cost / self._sizes[rows, None], np.inf)
        row, rank = np.unravel_index(int(np.argmin(each)), each.shape)
        self._move(int(rows[row]), int(rank))
        return True

    def _level(self, full: int, rows: IntArray) -> bool:
        sizes, first = np.unique(self._sizes[rows], return_index=True)
        others = np.flatnonzero((self.owners != full) & (self._sizes > 0))
        ranks = np.delete(np.arange(self.loads.size), full)
        # What may come back for a row: another's row, or nothing at all.
        back = np.concatenate([self._sizes[others], np.zeros(ranks.size, np.int64)])
        giver = np.concatenate([self.owners[others], ranks])
        differences = sizes[:, None] - back[None, :]
        after = np.maximum(self.loads[full] - differences, self.loads[giver][None, :] + differences)
        size, other = np.unravel_index(int(np.argmin(after)), after.shape)
        if after[size, other] >= self.loads[full]:
            return False
        self._move(int(rows[first[size]]), int(giver[other]))
        if other < others.size:
            self._move(int(others[other]), full)
        return True

    def _move(self, row: int, rank: int) -> None:
        source = self.owners[row]
        columns = self._reads.indices[self._reads.indptr[row] : self._reads.indptr[row + 1]]
        self._pins[columns, source] -= 1
        self._pins[columns, rank] += 1
        self.loads[source] -= self._sizes[row]
        self.loads[rank] += self._sizes[row]
        self.owners[row] = rank
