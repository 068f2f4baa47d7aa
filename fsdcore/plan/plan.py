"""A partition made executable: what each rank holds, sends and expects (paper, section III-A).

For layer k, rank r holds the rows of ``W_k`` for the neurons of ``x^k`` it owns, cut into one block per rank that owns
the ``x^(k-1)`` they read. Columns of a block are compact: the block of another rank has one column for each row that
rank sends, in ascending neuron order; the local block has one column for each row this rank owns.

Layer 1 reads the network's input, which every worker gets from the store. It has a local block only, whose columns
are `RankPart.input_rows`; so no message is sent for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Float32s, Int32s
from fsdcore.errors import PlanError, WireError
from fsdcore.messages.segments import Arrays
from fsdcore.network.activations import Activation

if TYPE_CHECKING:
    import scipy.sparse as sp

    from fsdcore.network.network import Layer, Network
    from fsdcore.partition.base import Owners, Partition


def visiting_order(indptr: npt.NDArray[np.integer], indices: Int32s) -> Int32s:
    """An order of a CSR block's rows that has rows with the same indices side by side, and near ones near.

    Any block may be ordered so; where lists differ it is by their first index, then by their length.
    """
    lengths = np.diff(indptr)
    first = np.full(lengths.size, np.iinfo(np.int32).max, np.int64)
    filled = lengths > 0
    first[filled] = indices[indptr[:-1][filled]]
    # A sum of scrambled indices tells lists apart; two that are the same by chance are only less well placed.
    scrambled = (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    scrambled ^= scrambled >> np.uint64(29)
    scrambled *= np.uint64(0xBF58476D1CE4E5B9)
    sums = np.zeros(lengths.size, np.uint64)
    if indices.size:
        sums[filled] = np.add.reduceat(scrambled, indptr[:-1][filled])
    return np.lexsort((sums, lengths, first)).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Block:
    """Weights of some rows over some columns, CSR `(rows, width)`: int32, int32, float32.

    `order` int32 `(rows,)` is the order in which the rows are best visited; results do not depend on it.
    """

    indptr: Int32s
    indices: Int32s
    data: Float32s
    width: int
    order: Int32s

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, width)."""
        return self.indptr.size - 1, self.width

    @property
    def nnz(self) -> int:
        """How many weights are stored: the multiplications for one sample."""
        return int(self.data.size)

    @property
    def memory_bytes(self) -> int:
        """What the arrays take."""
        return self.indptr.nbytes + self.indices.nbytes + self.data.nbytes + self.order.nbytes

    def matrix(self) -> sp.csr_array:
        """The block for scipy, which shares its arrays."""
        import scipy.sparse as sp

        return sp.csr_array((self.data, self.indices, self.indptr), shape=self.shape)


@dataclass(frozen=True)
class Source:
    """What comes from `rank`: the block of weights for the rows it sends, `(own rows, rows it sends)`."""

    rank: int
    block: Block


@dataclass(frozen=True)
class Send:
    """What goes to `rank`: positions of the rows among those this rank owns, ascending."""

    rank: int
    rows: Int32s


@dataclass(frozen=True)
class LayerPart:
    """One layer, for one rank. `local` is `(own rows of x^k, own rows of x^(k-1))`; both tuples are by rank."""

    local: Block
    sources: tuple[Source, ...]
    sends: tuple[Send, ...]
    bias: Float32s
    activation: Activation
    keeps_zero: bool

    @property
    def rows(self) -> int:
        """Neurons this rank computes."""
        return int(self.bias.size)

    @property
    def memory_bytes(self) -> int:
        """What the weights take, indices included."""
        blocks = [self.local, *(source.block for source in self.sources)]
        return sum(block.memory_bytes for block in blocks) + self.bias.nbytes


@dataclass(frozen=True)
class RankPart:
    """All that one rank needs of a plan. `input_rows`: the input neurons that its layer 1 reads, ascending."""

    rank: int
    workers: int
    input_rows: Int32s
    layers: tuple[LayerPart, ...]

    @property
    def memory_bytes(self) -> int:
        """What the weights of all layers take."""
        return sum(layer.memory_bytes for layer in self.layers)


def _positions(owners: Owners, workers: int) -> Int32s:
    """For each neuron, its position among those of its owner."""
    order = np.argsort(owners, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=workers))[:-1]])
    positions = np.empty(owners.size, np.int32)
    positions[order] = np.arange(owners.size) - starts[owners[order]]
    return positions


@dataclass(frozen=True)
class _Cut:
    """The weights of one rank's rows, cut by the owner of the column."""

    groups: Int32s
    indptr: npt.NDArray[np.int32]
    indices: Int32s
    data: Float32s
    columns: tuple[Int32s, ...]

    def arrays(self, prefix: str, numbers: list[int], widths: list[int]) -> Arrays:
        bounds = np.concatenate([[0], np.cumsum(self.indptr[:, -1])])
        taken = [np.arange(bounds[n], bounds[n + 1]) for n in numbers]
        picked = np.concatenate([np.empty(0, np.int64), *taken])
        orders = [visiting_order(self.indptr[n], self.indices[bounds[n] : bounds[n + 1]]) for n in numbers]
        return {
            f"{prefix}.ranks": self.groups[numbers],
            f"{prefix}.widths": np.array(widths, np.int32),
            f"{prefix}.indptr": self.indptr[numbers],
            f"{prefix}.indices": self.indices[picked],
            f"{prefix}.data": self.data[picked],
            f"{prefix}.order": np.array(orders, np.int32).reshape(len(numbers), self.indptr.shape[1] - 1),
        }


def _cut(weights: sp.csr_array, owners: Owners) -> _Cut:
    """Split `weights` by the owner of each column, columns made compact in ascending order within each owner."""
    rows = weights.shape[0]
    columns = np.unique(weights.indices)
    groups, group_of_column = np.unique(owners[columns], return_inverse=True)
    compact = np.empty(owners.size, np.int32)
    compact[columns] = _positions(group_of_column.astype(np.int32), max(groups.size, 1))
    group = np.empty(owners.size, np.int32)
    group[columns] = group_of_column
    row = np.repeat(np.arange(rows), np.diff(weights.indptr))
    cell = group[weights.indices].astype(np.int64) * rows + row
    order = np.argsort(cell, kind="stable")
    counts = np.bincount(cell, minlength=groups.size * rows).reshape(groups.size, rows)
    indptr = np.zeros((groups.size, rows + 1), np.int32)
    np.cumsum(counts, axis=1, out=indptr[:, 1:])
    chosen = weights.indices[order]
    split = tuple(columns[group_of_column == number].astype(np.int32) for number in range(groups.size))
    return _Cut(groups.astype(np.int32), indptr, compact[chosen], weights.data[order], split)


def _rank_arrays(
    layer: Layer, rows: Int32s, rank: int, before: Owners, positions: Int32s
) -> tuple[Arrays, dict[int, Int32s]]:
    """One rank's arrays of a layer without its sends, and the neurons it needs from each other rank."""
    cut = _cut(layer.weights[rows], before)
    own = [n for n, group in enumerate(cut.groups) if group == rank]
    others = [n for n, group in enumerate(cut.groups) if group != rank]
    arrays = cut.arrays("remote", others, [cut.columns[n].size for n in others])
    local = cut.arrays("local", own, [])
    indices = local["local.indices"]
    if own:
        # The local block reads this rank's own rows where they lie.
        indices = positions[cut.columns[own[0]]][indices]
    indptr = local["local.indptr"][0] if own else np.zeros(rows.size + 1, np.int32)
    width = np.count_nonzero(before == rank)
    arrays |= {"local.indptr": indptr, "local.indices": indices, "local.data": local["local.data"]}
    arrays["local.order"] = visiting_order(indptr, indices)
    arrays |= {"local.width": np.array([width], np.int32), "bias": layer.bias[rows]}
    return arrays, {int(cut.groups[n]): cut.columns[n] for n in others}


def _send_arrays(sends: dict[int, Int32s]) -> Arrays:
    rows = [np.empty(0, np.int32), *(sends[target] for target in sorted(sends))]
    return {
        "send.ranks": np.array(sorted(sends), np.int32),
        "send.counts": np.array([sends[target].size for target in sorted(sends)], np.int32),
        "send.rows": np.concatenate(rows).astype(np.int32),
    }


def _first_layer(network: Network, partition: Partition) -> list[Arrays]:
    """Layer 1: each rank's rows over the input neurons they read."""
    layer, owners = network.layers[0], partition.owners[1]
    result = []
    for rank in range(partition.workers):
        rows = np.flatnonzero(owners == rank).astype(np.int32)
        cut = _cut(layer.weights[rows], np.zeros(network.inputs, np.int32))
        needed = cut.columns[0] if cut.columns else np.empty(0, np.int32)
        indptr = cut.indptr[0] if cut.columns else np.zeros(rows.size + 1, np.int32)
        arrays = cut.arrays("remote", [], [])
        arrays |= {"local.indptr": indptr, "local.indices": cut.indices, "local.data": cut.data}
        arrays |= {
            "local.width": np.array([needed.size], np.int32),
            "bias": layer.bias[rows],
            "input_rows": needed,
            "local.order": visiting_order(indptr, cut.indices),
        }
        result.append(arrays | _send_arrays({}))
    return result


def _later_layer(layer: Layer, before: Owners, after: Owners, workers: int) -> list[Arrays]:
    positions = _positions(before, workers)
    sends: list[dict[int, Int32s]] = [{} for _ in range(workers)]
    result = []
    for rank in range(workers):
        rows = np.flatnonzero(after == rank).astype(np.int32)
        arrays, needs = _rank_arrays(layer, rows, rank, before, positions)
        for source, columns in needs.items():
            sends[source][rank] = positions[columns]
        result.append(arrays)
    return [arrays | _send_arrays(sends[rank]) for rank, arrays in enumerate(result)]


def layer_arrays(network: Network, partition: Partition) -> Iterator[list[Arrays]]:
    """For each layer in order, the arrays of every rank's `LayerPart`."""
    partition.check(network)
    yield _first_layer(network, partition)
    for number, layer in enumerate(network.layers[1:], start=1):
        yield _later_layer(layer, partition.owners[number], partition.owners[number + 1], partition.workers)


def _check_blocks(indptr: Int32s, order: Int32s, indices: Int32s, widths: Int32s) -> None:
    """`WireError` unless these are sound blocks of equally many rows, one after another: kernels read out of bounds
    where indices lie. `indptr` is `(blocks, rows + 1)`, `order` `(blocks, rows)`.
    """
    rows = order.shape[1]
    ends = np.cumsum(indptr[:, -1], dtype=np.int64)
    sound = (
        not indptr[:, 0].any()
        and bool((indptr[:, 1:] >= indptr[:, :-1]).all())
        and (ends[-1] if ends.size else 0) == indices.size
        and bool((np.sort(order, axis=1) == np.arange(rows)).all())
    )
    if sound and indices.size:
        filled = indptr[:, -1] > 0
        largest = np.maximum.reduceat(indices, (ends - indptr[:, -1])[filled])
        sound = bool(np.minimum.reduce(indices) >= 0 and (largest < widths[filled]).all())
    if not sound:
        raise WireError("a plan whose blocks are damaged")


_FLOATS, _INTEGERS = np.dtype(np.float32), np.dtype(np.int32)
# The dtype and the dimensions of a part's arrays.
_ARRAYS = {
    "bias": (_FLOATS, 1),
    "local.width": (_INTEGERS, 1),
    "local.indptr": (_INTEGERS, 1),
    "local.indices": (_INTEGERS, 1),
    "local.data": (_FLOATS, 1),
    "local.order": (_INTEGERS, 1),
    "remote.ranks": (_INTEGERS, 1),
    "remote.widths": (_INTEGERS, 1),
    "remote.indptr": (_INTEGERS, 2),
    "remote.indices": (_INTEGERS, 1),
    "remote.data": (_FLOATS, 1),
    "remote.order": (_INTEGERS, 2),
    "send.ranks": (_INTEGERS, 1),
    "send.counts": (_INTEGERS, 1),
    "send.rows": (_INTEGERS, 1),
}


def _check_arrays(arrays: Arrays) -> None:
    """`WireError` unless the arrays fit together."""
    for name, kind in _ARRAYS.items():
        if (arrays[name].dtype, arrays[name].ndim) != kind:
            raise WireError(f"a plan whose array {name} is damaged")
    if not (_blocks_fit(arrays) and _sends_fit(arrays)):
        raise WireError("a plan whose arrays contradict each other")


def _blocks_fit(arrays: Arrays) -> bool:
    """Whether the sizes of the blocks' arrays follow from the number of rows and of sources."""
    rows, sources = arrays["bias"].size, arrays["remote.ranks"]
    return bool(
        arrays["local.indptr"].size == rows + 1
        and arrays["local.order"].size == rows
        and arrays["local.indices"].size == arrays["local.data"].size
        and arrays["remote.indptr"].shape == (sources.size, rows + 1)
        and arrays["remote.order"].shape == (sources.size, rows)
        and arrays["remote.widths"].size == sources.size
        and arrays["remote.indices"].size == arrays["remote.data"].size
        and sources.min(initial=0) >= 0
    )


def _sends_fit(arrays: Arrays) -> bool:
    """Whether there is a count for each rank that is sent to, and as many rows as they count."""
    targets, counts = arrays["send.ranks"], arrays["send.counts"]
    return bool(
        targets.size == counts.size
        and counts.sum() == arrays["send.rows"].size
        and min(targets.min(initial=0), counts.min(initial=0)) >= 0
    )


def _sources(arrays: Arrays) -> Iterator[Source]:
    indptr, order, widths = arrays["remote.indptr"], arrays["remote.order"], arrays["remote.widths"]
    indices, data = arrays["remote.indices"], arrays["remote.data"]
    _check_blocks(indptr, order, indices, widths)
    # Every column is read, or its row would not be sent.
    if not ((widths > 0) & (widths <= indptr[:, -1])).all():
        raise WireError("a plan whose blocks are damaged")
    start = 0
    for number, (rank, width) in enumerate(zip(arrays["remote.ranks"].tolist(), widths.tolist(), strict=True)):
        stop = start + int(indptr[number, -1])
        yield Source(rank, Block(indptr[number], indices[start:stop], data[start:stop], width, order[number]))
        start = stop


def _sends(arrays: Arrays, owned: int) -> Iterator[Send]:
    rows, start = arrays["send.rows"], 0
    if rows.size and not 0 <= rows.min() <= rows.max() < owned:
        raise WireError("a plan whose send lists are damaged")
    for rank, count in zip(arrays["send.ranks"].tolist(), arrays["send.counts"].tolist(), strict=True):
        yield Send(rank, rows[start : start + count])
        start += count


def _local(arrays: Arrays) -> Block:
    indptr, indices, data, order, width = (
        arrays[f"local.{name}"] for name in ("indptr", "indices", "data", "order", "width")
    )
    _check_blocks(indptr[np.newaxis], order[np.newaxis], indices, width)
    return Block(indptr, indices, data, int(width[0]), order)


def from_arrays(arrays: Arrays, activation: Activation) -> LayerPart:
    """One layer's part from what `layer_arrays` gave; `WireError` if it is damaged."""
    try:
        _check_arrays(arrays)
        bias, local = arrays["bias"], _local(arrays)
        return LayerPart(
            local=local,
            sources=tuple(_sources(arrays)),
            sends=tuple(_sends(arrays, local.width)),
            bias=bias,
            activation=activation,
            keeps_zero=activation.keeps_zero(bias),
        )
    except (KeyError, IndexError) as error:
        raise WireError(f"a plan whose arrays are incomplete: {error}") from error


def check_workers(workers: int, limit: int | None) -> None:
    """`PlanError` if a deployment for `limit` workers cannot run `workers`."""
    if limit is not None and workers > limit:
        raise PlanError(
            f"{workers} workers are more than the {limit} this backend can run at once; "
            "take fewer, or a deployment for more"
        )
