"""What flows through a network: the activations of a sample of the input, or densities in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.arrays import Int64s
from fsdcore.errors import InputError
from fsdcore.network.network import Layer, Network, as_inputs
from fsdcore.partition.base import Owners, Partition
from fsdcore.partition.quality import layer_memory, widest_block

# Samples that are looked at, unless that would be too many values.
_SAMPLES, _VALUES = 512, 1 << 27


@dataclass(frozen=True, eq=False)
class Activity:
    """Activations of `samples` samples that stand for `population`: ``values[k]`` is x^k, CSR `(neurons, samples)`.

    `compressible` is False where values are made up, and cannot tell how well they compress.
    """

    samples: int
    population: int
    values: tuple[sp.csr_array, ...]
    compressible: bool = True

    @property
    def densities(self) -> list[float]:
        """The share of x^k that is not zero, for each k from 0."""
        return [x.nnz / max(1, x.shape[0] * x.shape[1]) for x in self.values]


def activity_of(network: Network, inputs: object, samples: int = 0) -> Activity:
    """The activations of `network` for `inputs`, `(samples, neurons)`, or for `samples` of them (0: a few hundred).

    Samples with more nonzeros stay alive for longer. So the chosen ones are every n-th in order of their nonzeros.
    """
    rows = as_inputs(inputs, network.inputs)
    count = min(rows.shape[0], samples or _affordable(network))
    x = sp.csr_array(rows[_every_kind(rows, count)]) if count < rows.shape[0] else rows
    values = [_by_neuron(x)]
    for layer in network.layers:
        x = layer.step(x)
        values.append(_by_neuron(x))
    return Activity(count, int(rows.shape[0]), tuple(values))


def _every_kind(rows: sp.csr_array, count: int) -> npt.NDArray[np.int64]:
    by_fullness = np.argsort(np.diff(rows.indptr), kind="stable")
    middles = (np.arange(count) + 0.5) * rows.shape[0] / count
    return np.sort(by_fullness[middles.astype(np.int64)])


def _affordable(network: Network) -> int:
    return max(8, min(_SAMPLES, _VALUES // sum(network.widths)))


def _by_neuron(x: sp.csr_array) -> sp.csr_array:
    turned = sp.csr_array(x.T.tocsr())
    turned.eliminate_zeros()
    turned.sort_indices()
    return turned


def assumed_activity(network: Network, densities: Sequence[float], population: int, seed: int = 0) -> Activity:
    """Activations of the given densities: one for all boundaries, or one for each of x^0 to x^L.

    The positions of nonzeros are drawn at random, so a forecast made from them is as good as the densities are.
    """
    given = list(densities) * (len(network) + 1) if len(densities) == 1 else list(densities)
    if len(given) != len(network) + 1:
        raise InputError(f"{len(given)} densities; one is needed, or {len(network) + 1}, for the input and each layer")
    if not all(0 <= density <= 1 for density in given):
        raise InputError("a density must be between 0 and 1")
    if population < 1:
        raise InputError(f"samples must be at least 1, not {population}")
    rng = np.random.default_rng(seed)
    count = min(population, _affordable(network))
    made = [_drawn(width, count, density, rng) for width, density in zip(network.widths, given, strict=True)]
    return Activity(count, population, tuple(made), compressible=False)


def _drawn(neurons: int, samples: int, density: float, rng: np.random.Generator) -> sp.csr_array:
    made: Any = sp.random_array((neurons, samples), density=density, format="csr", dtype=np.float32, rng=rng)
    return _by_neuron(sp.csr_array(made.T))


@dataclass(frozen=True, eq=False)
class LayerStructure:
    """One layer.

    Messages, in order of source and target: `source`, `target`, and `sends`, CSR bool `(messages, neurons of x^(k-1))`,
    the rows of each. `reads`, CSR bool `(workers, neurons of x^(k-1))`: the rows that each rank holds or receives.
    `local_weights`, `remote_weights`, `rows`: by rank, weights over its own rows and over others', and its neurons.
    """

    source: Int64s
    target: Int64s
    sends: sp.csr_array
    reads: sp.csr_array
    local_weights: Int64s
    remote_weights: Int64s
    rows: Int64s

    @property
    def message_rows(self) -> Int64s:
        """The rows of each message."""
        return np.diff(self.sends.indptr).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Structure:
    """All layers. `memory_bytes`: what the weights of each rank take, indices included."""

    workers: int
    layers: tuple[LayerStructure, ...]
    memory_bytes: Int64s
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


def _memory(layer: LayerStructure, workers: int, widest: int) -> Int64s:
    weights = layer.local_weights + layer.remote_weights
    blocks = 1 + np.bincount(layer.target, minlength=workers)
    sent = np.bincount(layer.source, weights=layer.message_rows, minlength=workers).astype(np.int64)
    return layer_memory(weights, layer.rows, blocks, sent, widest)


def _weights(layer: Layer, chosen: npt.NDArray[np.bool_], after: Owners, workers: int) -> Int64s:
    row = np.repeat(after, np.diff(layer.weights.indptr))
    return np.bincount(row[chosen], minlength=workers).astype(np.int64)


def _incidence(row: Int64s, column: Int64s, shape: tuple[int, int]) -> sp.csr_array:
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
