"""What a partition makes of a network, whatever the samples: who sends which rows to whom, and who multiplies what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.network.network import Layer, Network
from fsdcore.partition.base import Owners, Partition
from fsdcore.partition.quality import layer_memory, widest_block

__all__ = ["LayerStructure", "Structure", "structure_of"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerStructure:
    """One layer.

    Messages, in order of source and target: `source`, `target`, and `sends`, CSR bool `(messages, neurons of x^(k-1))`,
    the rows of each. `reads`, CSR bool `(workers, neurons of x^(k-1))`: the rows that each rank holds or receives.
    `local_weights`, `remote_weights`, `rows`: by rank, weights over its own rows and over others', and its neurons.
    """

    source: Ints
    target: Ints
    sends: sp.csr_array
    reads: sp.csr_array
    local_weights: Ints
    remote_weights: Ints
    rows: Ints

    @property
    def message_rows(self) -> Ints:
        """The rows of each message."""
        return np.diff(self.sends.indptr).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Structure:
    """All layers. `memory_bytes`: what the weights of each rank take, indices included."""

    workers: int
    layers: tuple[LayerStructure, ...]
    memory_bytes: Ints
    largest_rows: int

    @property
    def messages(self) -> int:
        """Messages of one batch."""
        return sum(layer.source.size for layer in self.layers)


def structure_of(network: Network, partition: Partition) -> Structure:
    """The structure of `partition`; `PlanError` if it is not one of `network`."""
    partition.check(network)
    workers, owners = partition.workers, partition.owners
    first = _first(network.layers[0], owners[1], workers)
    later = [
        _later(layer, before, after, workers)
        for layer, before, after in zip(network.layers[1:], owners[1:-1], owners[2:], strict=True)
    ]
    layers = (first, *later)
    widest = [widest_block(number, before) for number, before in enumerate(owners[:-1])]
    memory = [_memory(layer, workers, most) for layer, most in zip(layers, widest, strict=True)]
    return Structure(
        workers=workers,
        layers=layers,
        memory_bytes=sum(memory, np.zeros(workers, np.int64)),
        largest_rows=max(int(layer.rows.max(initial=0)) for layer in layers),
    )


def _memory(layer: LayerStructure, workers: int, widest: int) -> Ints:
    weights = layer.local_weights + layer.remote_weights
    blocks = 1 + np.bincount(layer.target, minlength=workers)
    sent = np.bincount(layer.source, weights=layer.message_rows, minlength=workers).astype(np.int64)
    return layer_memory(weights, layer.rows, blocks, sent, widest)


def _weights(layer: Layer, chosen: npt.NDArray[np.bool_], after: Owners, workers: int) -> Ints:
    row = np.repeat(after, np.diff(layer.weights.indptr))
    return np.bincount(row[chosen], minlength=workers).astype(np.int64)


def _incidence(row: Ints, column: Ints, shape: tuple[int, int]) -> sp.csr_array:
    made = sp.csr_array((np.ones(row.size, np.float32), (row, column)), shape=shape)
    made.sum_duplicates()
    made.data[:] = 1
    return made


def _reads(layer: Layer, after: Owners, workers: int) -> sp.csr_array:
    """The neurons that each rank's rows read."""
    target = np.repeat(after, np.diff(layer.weights.indptr)).astype(np.int64)
    return _incidence(target, layer.weights.indices.astype(np.int64), (workers, layer.inputs))


def _first(layer: Layer, after: Owners, workers: int) -> LayerStructure:
    """Layer 1 reads the input from the store: no message is sent for it."""
    none = np.empty(0, np.int64)
    every = np.ones(layer.weights.nnz, np.bool_)
    return LayerStructure(
        source=none,
        target=none,
        sends=sp.csr_array(np.empty((0, layer.inputs), np.float32)),
        reads=_reads(layer, after, workers),
        local_weights=_weights(layer, every, after, workers),
        remote_weights=np.zeros(workers, np.int64),
        rows=np.bincount(after, minlength=workers).astype(np.int64),
    )


def _later(layer: Layer, before: Owners, after: Owners, workers: int) -> LayerStructure:
    reads = _reads(layer, after, workers)
    target = np.repeat(np.arange(workers), np.diff(reads.indptr))
    source = before[reads.indices].astype(np.int64)
    sent = source != target
    cell = source[sent] * workers + target[sent]
    pairs, message = np.unique(cell, return_inverse=True)
    own = np.concatenate([target, before.astype(np.int64)])
    neurons = np.concatenate([reads.indices.astype(np.int64), np.arange(before.size)])
    from_here = before[layer.weights.indices] == np.repeat(after, np.diff(layer.weights.indptr))
    return LayerStructure(
        source=pairs // workers,
        target=pairs % workers,
        sends=_incidence(message, reads.indices[sent].astype(np.int64), (pairs.size, before.size)),
        reads=_incidence(own, neurons, (workers, before.size)),
        local_weights=_weights(layer, from_here, after, workers),
        remote_weights=_weights(layer, ~from_here, after, workers),
        rows=np.bincount(after, minlength=workers).astype(np.int64),
    )
