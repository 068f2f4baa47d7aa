"""Hypergraph partition, layer by layer, with Mt-KaHyPar (paper, section III-A, made 4 times better).

The paper partitions all layers at once. Here layer k is partitioned knowing who owns ``x^(k-1)``: vertices are the
neurons the layer computes, weighted by their nonzeros, and one fixed vertex per rank; a net is a neuron it reads,
with those that read it and the fixed vertex of its owner as pins. The connectivity less one of a net is then the number
of ranks its row is sent to, which is what is minimised.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from fsdcore.errors import MissingExtraError
from fsdcore.events import Observer
from fsdcore.network import Layer, Network
from fsdcore.partition.base import Owners
from fsdcore.partition.simple import balanced_ranges

__all__ = ["hypergraph"]

_IMBALANCE = 0.03
# One thread: with more, the same seed gives another partition each time.
_THREADS = 1


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
    return mtkahypar, mtkahypar.initialize(_THREADS, False)


def hypergraph(network: Network, workers: int, seed: int, observer: Observer) -> list[Owners]:
    """Owners at boundaries 0..L. The same seed gives the same owners on the same release of the partitioner."""
    before: Owners | None = None
    owners: list[Owners] = []
    for number, layer in enumerate(network.layers, start=1):
        before = _partition_layer(layer, before, workers, seed + number)
        owners.append(before)
        observer.progress("partition", number, len(network))
    return [_input_owners(network.layers[0], owners[0], workers), *owners]


def _lot_size(share: float) -> int:
    """How many twins may go as one, where each rank has a `share` of the rows: as balance allows."""
    sizes = (2**power for power in range(5, 0, -1))
    return next((size for size in sizes if math.ceil(share / size) * size <= share * (1 + _IMBALANCE)), 1)


def _lots(layer: Layer, workers: int) -> Owners:
    """The vertex of each output: outputs that read the same inputs (twins) share one, in lots.

    The graph is smaller for it, so it is partitioned sooner, and better.
    """
    bounds, columns = layer.weights.indptr, layer.weights.indices
    size = _lot_size(layer.outputs / workers)
    seen: Counter[bytes] = Counter()
    vertices: dict[tuple[bytes, int], int] = {}
    lots = np.empty(layer.outputs, np.int32)
    for row in range(layer.outputs):
        reads = columns[bounds[row] : bounds[row + 1]].tobytes()
        lots[row] = vertices.setdefault((reads, seen[reads] // size), len(vertices))
        seen[reads] += 1
    return lots


def _nets(layer: Layer, lots: Owners, before: Owners | None) -> Counter[tuple[int, ...]]:
    """Pins of each net, and how often it is there; nets of one pin cost nothing and are left out."""
    columns = sp.csc_array(layer.weights)
    bounds, vertices = columns.indptr, lots[columns.indices]
    ranks = int(lots.max(initial=-1)) + 1
    nets: Counter[tuple[int, ...]] = Counter()
    for column in range(layer.inputs):
        pins = np.unique(vertices[bounds[column] : bounds[column + 1]]).tolist()
        if before is not None and pins:
            pins.append(ranks + int(before[column]))
        if len(pins) > 1:
            nets[tuple(pins)] += 1
    return nets


def _partition_layer(layer: Layer, before: Owners | None, workers: int, seed: int) -> Owners:
    loads = np.diff(layer.weights.indptr)
    # With fewer than two rows per rank balance decides everything.
    if layer.outputs < 2 * workers:
        return balanced_ranges(loads, workers)
    lots = _lots(layer, workers)
    nets = _nets(layer, lots, before)
    if not nets:
        return balanced_ranges(loads, workers)
    weights = np.bincount(lots, weights=np.maximum(loads, 1)).astype(int).tolist()
    owners = _partition_graph(weights, nets, workers, fixed=before is not None, seed=seed)
    return owners[lots]


def _partition_graph(
    weights: list[int], nets: Counter[tuple[int, ...]], workers: int, fixed: bool, seed: int
) -> Owners:
    """The rank of each vertex. With `fixed`, nets may name one more vertex per rank, which stays there."""
    package, core = _partitioner()
    context = core.context_from_preset(package.PresetType.QUALITY)
    context.set_partitioning_parameters(workers, _IMBALANCE, package.Objective.KM1)
    context.logging = False
    # A fixed vertex weighs 1: the partitioner crashes on small graphs where it weighs nothing.
    anchors = [1] * workers if fixed else []
    pins, count = [list(net) for net in nets], len(weights)
    graph = core.create_hypergraph(
        context, count + len(anchors), len(pins), pins, weights + anchors, list(nets.values())
    )
    if fixed:
        graph.add_fixed_vertices([-1] * count + list(range(workers)), workers)
    package.set_seed(seed)
    return np.array(graph.partition(context).get_partition()[:count], np.int32)


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
