"""Hypergraph partition, layer by layer, with Mt-KaHyPar (after the paper, section III-A).

The paper partitions all layers at once. Here layer k is partitioned knowing who owns ``x^(k-1)``: vertices are the
neurons the layer computes, weighted by their nonzeros, and one fixed vertex per rank; a net is a neuron it reads,
with those that read it and the fixed vertex of its owner as pins. The connectivity less one of a net is then the number
of ranks its row is sent to, which is what is minimised; balance holds in every layer.
"""

from __future__ import annotations

import heapq
import os
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.arrays import Int64s
from fsdcore.errors import MissingExtraError
from fsdcore.network.network import Layer, Network
from fsdcore.partition.base import Owners
from fsdcore.record.observer import Observer

# Layers are small: more threads wait for each other. The partition does not depend on their number.
_MOST_THREADS = 4
# Seed and random numbers of the partitioner are one per process.
_ONE_AT_A_TIME = threading.Lock()


@cache
def _partitioner() -> tuple[Any, Any]:
    """The package and its initialised core: once per process, as it starts its own threads."""
    try:
        import mtkahypar
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "the hypergraph method needs the package mtkahypar, which is not installed; "
            "run: pip install 'fsd-inference[client]', or choose the method block"
        ) from error
    return mtkahypar, mtkahypar.initialize(min(os.cpu_count() or 1, _MOST_THREADS), False)


def hypergraph(network: Network, workers: int, seed: int, observer: Observer) -> list[Owners]:
    """Owners at boundaries 0..L, int32 `(neurons,)` each, with few rows sent and loads within 3 % of their mean.

    Where whole rows do not allow 3 % (few rows per rank, or very uneven ones) loads are as even as they can be made.
    Rows without nonzeros go where the fewest neurons are. The same seed gives the same owners on the same release of
    Mt-KaHyPar, whatever the threads and whatever ran before. Ctrl-C takes effect between layers. `MissingExtraError`
    if Mt-KaHyPar is not installed.
    """
    _partitioner()
    before: Owners | None = None
    owners: list[Owners] = []
    for number, layer in enumerate(network.layers, start=1):
        before = _layer_owners(layer.weights, before, workers, seed)
        owners.append(before)
        observer.progress("partition", number, len(network))
    return [_input_owners(network.layers[0], owners[0], workers), *owners]


def _layer_owners(weights: sp.csr_array, before: Owners | None, workers: int, seed: int) -> Owners:
    loads = np.diff(weights.indptr)
    filled, empty = np.flatnonzero(loads), np.flatnonzero(loads == 0)
    owners = np.zeros(loads.size, np.int32)
    if filled.size:
        # The rest sees no empty row: they have no load and no pins.
        owners[filled] = _filled_owners(sp.csr_array(weights[filled]), before, workers, seed)
    share_out(owners, empty, workers)
    return owners


def _filled_owners(weights: sp.csr_array, before: Owners | None, workers: int, seed: int) -> Owners:
    loads = np.diff(weights.indptr).astype(np.int64)
    if loads.size <= workers:
        return _one_each(weights, before, workers)
    limit = largest_load(loads, workers)
    cluster = _clusters(weights, loads, workers, limit)
    one_of = np.unique(cluster, return_index=True)[1]
    nets = nets_of(sp.csr_array(weights[one_of]), before)
    owners = _partition(nets, _sums(loads, cluster), 0 if before is None else workers, workers, limit, seed)[cluster]
    return rebalance(weights, owners, before, workers, limit)


def _clusters(weights: sp.csr_array, loads: Int64s, workers: int, limit: int) -> Int64s:
    """The cluster of each row: twins joined as far as balance allows. Sooner partitioned so, and better."""
    pieces = 1
    while True:
        cluster = twins(weights, pieces)
        sizes = _sums(loads, cluster)
        if sizes.size == loads.size or largest_load(sizes, workers) <= limit:
            return cluster
        pieces *= 2


def _sums(loads: Int64s, cluster: Int64s) -> Int64s:
    return np.bincount(cluster, weights=loads.astype(np.float64)).astype(np.int64)


def _one_each(weights: sp.csr_array, before: Owners | None, workers: int) -> Owners:
    """No more rows than ranks: a rank each, such that the most inputs are read where they are."""
    from scipy.optimize import linear_sum_assignment

    if before is None:
        return np.arange(weights.shape[0], dtype=np.int32)
    here = np.zeros((before.size, workers), np.int32)
    here[np.arange(before.size), before] = 1
    reads = sp.csr_array((np.ones(weights.nnz, np.int32), weights.indices, weights.indptr), shape=weights.shape)
    found: Int64s = linear_sum_assignment(np.asarray(reads @ here), maximize=True)[1]
    return found.astype(np.int32)


def _partition(nets: Nets, sizes: Int64s, fixed: int, workers: int, limit: int, seed: int) -> Owners:
    """The partitioner's owner of each vertex, for vertices of `sizes` nonzeros and `fixed` vertices more."""
    package, core = _partitioner()
    # A fixed vertex that is in no net and weighs nothing sends the partitioner into an endless loop: each weighs 1.
    weights = np.concatenate([sizes, np.ones(fixed, np.int64)])
    allowed = limit + (fixed > 0) + 0.5
    mean = -(-int(weights.sum()) // workers)
    # The other presets give another partition with each call, whatever the seed, and even on one thread.
    context = core.context_from_preset(package.PresetType.DETERMINISTIC)
    context.set_partitioning_parameters(workers, allowed / mean - 1, package.Objective.KM1)
    context.logging = False
    graph = core.create_hypergraph(context, weights.size, len(nets.pins), nets.pins, weights.tolist(), nets.weights)
    if fixed:
        graph.add_fixed_vertices([-1] * sizes.size + list(range(workers)), workers)
    with _ONE_AT_A_TIME:
        package.set_seed(seed)
        return np.array(graph.partition(context).get_partition()[: sizes.size], np.int32)


def _input_owners(layer: Layer, after: Owners, workers: int) -> Owners:
    """An owner for each input neuron among the ranks that read it, taken in turn.

    Workers read the input from the store, so these owners cost and save nothing in a run.
    """
    columns = sp.csc_array(layer.weights)
    owners = np.arange(layer.inputs, dtype=np.int32) % workers
    for column in np.flatnonzero(np.diff(columns.indptr)).tolist():
        readers = np.unique(after[columns.indices[columns.indptr[column] : columns.indptr[column + 1]]])
        owners[column] = readers[column % readers.size]
    return owners


Marks = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Nets:
    """`pins` of each net, and how many inputs have exactly these pins."""

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


def twins(weights: sp.csr_array, pieces: int) -> Int64s:
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


IMBALANCE = 0.03
"""How far the largest load may be over the mean."""


def largest_load(loads: Int64s, workers: int) -> int:
    """The largest load a rank may have: 3 % over the mean, or what no partition can stay below if that is more.

    `loads`: int64 `(rows,)`, nonzeros. Of the ``j P + 1`` heaviest rows some rank has ``j + 1``.
    """
    heaviest = np.sort(loads)[::-1]
    sums = np.concatenate([[0], np.cumsum(heaviest)])
    j = np.arange(0, -(-loads.size // workers))
    least = int((sums[j * workers + 1] - sums[j * workers - j]).max(initial=0))
    total = int(sums[-1])
    return max(least, -(-total // workers), int((1 + IMBALANCE) * total / workers))


def share_out(owners: Owners, rows: Int64s, workers: int) -> None:
    """Give `rows`, which have no nonzeros, to the ranks with the fewest neurons, in place. Other rows have owners."""
    counts = np.bincount(np.delete(owners, rows), minlength=workers).tolist()
    ranks = [(count, rank) for rank, count in enumerate(counts)]
    heapq.heapify(ranks)
    for row in rows.tolist():
        count, rank = ranks[0]
        owners[row] = rank
        heapq.heapreplace(ranks, (count + 1, rank))


def rebalance(weights: sp.csr_array, owners: Owners, before: Owners | None, workers: int, limit: int) -> Owners:
    """`owners`, with rows moved until no rank has more than `limit` nonzeros, or no move helps any more.

    Each step moves a row off the fullest rank, to the rank where it adds the fewest sent rows per nonzero moved. If the
    row fits nowhere, the step takes the move or exchange that leaves the least on the fuller of the two ranks.
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

    def _cheapest(self, full: int, rows: Int64s) -> bool:
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

    def _level(self, full: int, rows: Int64s) -> bool:
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
