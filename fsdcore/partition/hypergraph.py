"""Hypergraph partition, layer by layer, with Mt-KaHyPar (after the paper, section III-A).

The paper partitions all layers at once. Here layer k is partitioned knowing who owns ``x^(k-1)``: vertices are the
neurons the layer computes, weighted by their nonzeros, and one fixed vertex per rank; a net is a neuron it reads,
with those that read it and the fixed vertex of its owner as pins. The connectivity less one of a net is then the number
of ranks its row is sent to, which is what is minimised; balance holds in every layer.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.errors import MissingExtraError
from fsdcore.network.network import Layer, Network
from fsdcore.partition.balance import largest_load, rebalance, share_out
from fsdcore.partition.base import Owners
from fsdcore.partition.nets import Nets, nets_of, twins
from fsdcore.record.observer import Observer

__all__ = ["hypergraph"]

IntArray = npt.NDArray[np.int64]

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


def _clusters(weights: sp.csr_array, loads: IntArray, workers: int, limit: int) -> IntArray:
    """The cluster of each row: twins joined as far as balance allows. Sooner partitioned so, and better."""
    pieces = 1
    while True:
        cluster = twins(weights, pieces)
        sizes = _sums(loads, cluster)
        if sizes.size == loads.size or largest_load(sizes, workers) <= limit:
            return cluster
        pieces *= 2


def _sums(loads: IntArray, cluster: IntArray) -> IntArray:
    return np.bincount(cluster, weights=loads.astype(np.float64)).astype(np.int64)


def _one_each(weights: sp.csr_array, before: Owners | None, workers: int) -> Owners:
    """No more rows than ranks: a rank each, such that the most inputs are read where they are."""
    from scipy.optimize import linear_sum_assignment

    if before is None:
        return np.arange(weights.shape[0], dtype=np.int32)
    here = np.zeros((before.size, workers), np.int32)
    here[np.arange(before.size), before] = 1
    reads = sp.csr_array((np.ones(weights.nnz, np.int32), weights.indices, weights.indptr), shape=weights.shape)
    found: IntArray = linear_sum_assignment(np.asarray(reads @ here), maximize=True)[1]
    return found.astype(np.int32)


def _partition(nets: Nets, sizes: IntArray, fixed: int, workers: int, limit: int, seed: int) -> Owners:
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
