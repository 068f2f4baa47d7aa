"""Hypergraph partition, layer by layer, with Mt-KaHyPar (paper, section III-A, made 4 times better).

The paper partitions all layers at once. Here layer k is partitioned knowing who owns ``x^(k-1)``: vertices are the
neurons the layer computes, weighted by their nonzeros, and one fixed vertex per rank; a net is a neuron it reads,
with those that read it and the fixed vertex of its owner as pins. The connectivity less one of a net is then the number
of ranks its row is sent to, which is what is minimised.
"""

from __future__ import annotations

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


def _nets(layer: Layer, before: Owners | None) -> Counter[tuple[int, ...]]:
    """Pins of each net, and how often; nets of one pin cost nothing and are left out."""
    columns = sp.csc_array(layer.weights)
    nets: Counter[tuple[int, ...]] = Counter()
    bounds, rows = columns.indptr.tolist(), columns.indices.tolist()
    for column in range(layer.inputs):
        pins = rows[bounds[column] : bounds[column + 1]]
        if before is not None and pins:
            pins.append(layer.outputs + int(before[column]))
        if len(pins) > 1:
            nets[tuple(pins)] += 1
    return nets


def _partition_layer(layer: Layer, before: Owners | None, workers: int, seed: int) -> Owners:
    loads = np.diff(layer.weights.indptr)
    nets = _nets(layer, before)
    # With fewer than two rows per rank balance decides everything.
    if not nets or layer.outputs < 2 * workers:
        return balanced_ranges(loads, workers)
    package, core = _partitioner()
    context = core.context_from_preset(package.PresetType.DEFAULT)
    context.set_partitioning_parameters(workers, _IMBALANCE, package.Objective.KM1)
    context.logging = False
    fixed = 0 if before is None else workers
    weights = np.maximum(loads, 1).tolist() + [0] * fixed
    graph = core.create_hypergraph(
        context, layer.outputs + fixed, len(nets), [list(pins) for pins in nets], weights, list(nets.values())
    )
    if fixed:
        graph.add_fixed_vertices([-1] * layer.outputs + list(range(workers)), workers)
    package.set_seed(seed)
    return np.array(graph.partition(context).get_partition()[: layer.outputs], np.int32)


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
