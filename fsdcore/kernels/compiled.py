"""The compiled kernel: weights in visiting order, activations in tiles of samples.

A tile holds up to 64 samples ("lanes") of every row, so that what a row reads lies close together; see ``_native.c``.
Samples that have died are skipped when the next layer reads, so no separate pass removes them.
"""

from __future__ import annotations

import bisect
import os
import threading
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Float32s, Int32s
from fsdcore.kernels import _native
from fsdcore.kernels.base import Activations, Kernel, PreparedLayer, SparseRows, SparseSamples, Strip
from fsdcore.messages.rows import Rows, Table
from fsdcore.messages.sample_lists import Columns
from fsdcore.plan.plan import Block
from fsdcore.turns import standing_aside

# Widths of tiles are multiples of this; the widest tile.
_STEP, _WIDEST = 16, 64
# Bytes of a line of the cache.
_LINE = 64
# What a tile of x may take: it then stays in the second-level cache, or at least is not far from it.
_TILE_BYTES = 4 * 1024 * 1024
# Up to this share of live samples, the dead ones are cut out: any at all, as peers send none of them either.
_WORTH_CUTTING = 0.9999
# Products of one call for which a second thread is worth waking, here or in C; the most threads of a call.
_WORTH_SHARING = 2_000_000
_MOST_THREADS = 64
# Buffers kept for use again, of activations and of what is packed to be multiplied.
_SPARES = 1
_FUSED = {"identity": 0, "relu": 1, "clipped_relu": 2, "leaky_relu": 3}
_NONE: Float32s = np.empty(0, np.float32)
_NO_LANES: Int32s = np.empty(0, np.int32)
_NO_MARKS: npt.NDArray[np.uint8] = np.empty(0, np.uint8)


class _Buffers:
    """Memory of arrays that are gone, for those to come: fresh memory costs more than a product at times."""

    def __init__(self) -> None:
        self._spare: list[Float32s] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> Float32s:
        """A float32 array of at least `size`, with anything in it."""
        with self._lock:
            # Ascending by size: the smallest that is large enough.
            for number, spare in enumerate(self._spare):
                if spare.size >= size:
                    return self._spare.pop(number)
            # It will be too small next time as well.
            del self._spare[:1]
        return _aligned(size)

    def give(self, array: Float32s) -> None:
        with self._lock:
            bisect.insort(self._spare, array, key=_size)
            if len(self._spare) > _SPARES:
                del self._spare[:1]


def _aligned(size: int) -> Float32s:
    """Fresh memory that begins with a line of the cache: else every vector of a row would lie in two of them."""
    room = np.empty(size + _LINE // 4, np.float32)
    start = -room.__array_interface__["data"][0] % _LINE // 4
    return room[start : start + size]


def _size(array: Float32s) -> int:
    return array.size


@lru_cache(maxsize=8)
def _own_lanes(count: int) -> Int32s:
    """0, 1, 2 and so on, read-only."""
    lanes = np.arange(count, dtype=np.int32)
    lanes.setflags(write=False)
    return lanes


@lru_cache(maxsize=8)
def _in_front(count: int, lanes: int) -> Int32s:
    """The lanes that read `count` lanes in front: their own, -1 beyond; read-only."""
    result = _lanes(_own_lanes(count), None, lanes)
    result.setflags(write=False)
    return result


@lru_cache(maxsize=8)
def _one_row(count: int) -> Int32s:
    """Zeros: all rows are the first; read-only."""
    numbers = np.zeros(count, np.int32)
    numbers.setflags(write=False)
    return numbers


class _Target(NamedTuple):
    """Lanes that a product is written to, from a whole tile on, and where it marks those that are not all zero."""

    memory: Float32s
    tile: int
    lanes: int
    marks: npt.NDArray[np.uint8]


class _Tiles(Activations):
    """Rows in tiles. `lane_of` int32 has the lane of each column; `whole` is false once some are left out."""

    def __init__(self, buffers: _Buffers, size: int, columns: Columns, tile: int) -> None:
        self.size, self.columns, self.tile = size, columns, tile
        self.lanes = -(-columns.size // _STEP) * _STEP
        self.lane_of = _own_lanes(columns.size)
        self.whole = True
        self._buffers = buffers
        self.memory = buffers.take(size * self.lanes)
        self.marks = np.zeros(self.lanes, np.uint8)

    def part(self, start: int, columns: int) -> _Target:
        """The lanes from `start` on, which begin a tile, for so many columns."""
        lanes = -(-columns // _STEP) * _STEP
        memory = self.memory[self.size * start : self.size * (start + lanes)]
        return _Target(memory, self.tile, lanes, self.marks[start : start + lanes])

    def __del__(self) -> None:
        self._buffers.give(self.memory)

    def has(self, columns: Columns) -> bool:
        """Whether its columns are just these."""
        if columns is self.columns:
            return True
        if columns.size != self.columns.size or not (columns == self.columns).all():
            return False
        # Messages often pass the same array object, which is found sooner.
        self.columns = columns
        return True

    def keep(self, live: npt.NDArray[np.bool_]) -> None:
        """Leave out the columns that are not `live`."""
        self.columns, self.lane_of, self.whole = self.columns[live], self.lane_of[live], False

    def rows(self, positions: Int32s | None = None) -> Float32s:
        picked = _own_lanes(self.size) if positions is None else np.ascontiguousarray(positions)
        result = np.empty((picked.size, self.columns.size), np.float32)
        _native.take((self.memory, self.size, self.tile, self.lanes), picked, self.lane_of, result)
        return result


class _Weights(NamedTuple):
    """A block as C holds it, its columns, its products for one sample, and its groups of rows."""

    block: Any
    width: int
    nnz: int
    groups: int


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tile_for(width: int) -> int:
    """How many samples a tile of `width` rows should have."""
    tile = _WIDEST
    while tile > _STEP and 4 * width * tile > _TILE_BYTES:
        tile //= 2
    return tile


def _places(columns: Columns, sought: Columns) -> Columns:
    """Where each of `sought` stands in the ascending `columns`, or would."""
    return np.searchsorted(columns, sought).astype(np.int32)


def _lanes(lane_of: Int32s, places: npt.NDArray[np.integer] | None, lanes: int) -> Int32s:
    """For each lane of the target the one it reads: `lane_of` at `places`, or in front; -1 elsewhere."""
    result = np.full(lanes, -1, np.int32)
    result[slice(lane_of.size) if places is None else places] = lane_of
    return result


def _as_tiles(z: Activations) -> _Tiles:
    if not isinstance(z, _Tiles):
        raise TypeError("activations of another kernel")
    return z


class CompiledKernel(Kernel):
    """The product in C, by `threads` threads; 0 for the cores this process may use, shared among its kernels."""

    name = "compiled"
    _alive: ClassVar[weakref.WeakSet[CompiledKernel]] = weakref.WeakSet()

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads
        self._buffers, self._packing = _Buffers(), _Buffers()
        self._alive.add(self)

    @property
    def threads(self) -> int:
        """How many threads a large product gets now."""
        return self._threads or max(1, _cores() // max(1, len(self._alive)))

    def close(self) -> None:
        """Takes this kernel out of the count by which kernels of one process share its cores."""
        self._alive.discard(self)

    def _block(self, block: Block) -> _Weights:
        starts = block.indptr.astype(np.int64)
        made = _native.block(starts, block.indices, block.data, block.order, block.width)
        return _Weights(made, block.width, block.nnz, _native.describe(made)[1])

    def first(self, layer: PreparedLayer, strip: Strip, samples: int, z: Activations | None = None) -> Activations:
        """Writes the strip's products into its columns of `z`, without gathering the whole input first."""
        values, weights = strip.values, layer.blocks[0]
        by_sample = _by_sample(values, strip.samples) if isinstance(values, SparseRows) else values
        if z is None:
            z = _Tiles(self._buffers, layer.rows, _own_lanes(samples), _tile_for(weights.width))
        whole = _as_tiles(z)
        part = whole.part(strip.start, strip.samples)
        source = (
            by_sample.indptr.astype(np.int64, copy=False),
            by_sample.indices.astype(np.int32, copy=False),
            by_sample.data.astype(np.float32, copy=False),
            _in_front(strip.samples, part.lanes),
        )
        self._multiply(_native.multiply_samples, layer, weights, source, part, add=False, last=True, packs=True)
        return self._finished(layer, whole) if strip.start + strip.samples == samples else whole

    def local(self, layer: PreparedLayer, x: Activations, samples: int) -> Activations:
        """Over the live samples alone where `layer.keeps_zero`, else over all, since zeros become ``f(b)``."""
        mine, weights = _as_tiles(x), layer.blocks[0]
        everything = layer.keeps_zero or mine.columns.size == samples
        columns = mine.columns if everything else _own_lanes(samples)
        packs = not (mine.whole and everything)
        z = _Tiles(self._buffers, layer.rows, columns, _tile_for(weights.width) if packs else mine.tile)
        lane_of = _lanes(mine.lane_of, None if everything else mine.columns, z.lanes) if packs else _NO_LANES
        source = (mine.memory, mine.tile, mine.lanes, lane_of, _NO_LANES)
        last, whole = not layer.ranks, z.part(0, columns.size)
        self._multiply(_native.multiply, layer, weights, source, whole, add=False, last=last, packs=packs)
        return self._finished(layer, z) if last else z

    def add(self, layer: PreparedLayer, number: int, rows: Rows | Table, z: Activations) -> Activations:
        """Adds in place, unless the source has samples that `z` lacks: then `z` is widened into a new buffer."""
        product, last = _as_tiles(z), number == len(layer.ranks) - 1
        weights, columns = layer.blocks[number + 1], rows.columns
        if not (columns.size or last):
            return product
        if product.has(columns):
            lane_of = _in_front(columns.size, product.lanes)
        else:
            product = self._widened(product, columns)
            lane_of = _lanes(_own_lanes(columns.size), _places(product.columns, columns), product.lanes)
        source = (*_rows_of(rows), lane_of, _numbers_of(rows, weights.width))
        whole = product.part(0, product.columns.size)
        self._multiply(_native.multiply, layer, weights, source, whole, add=True, last=last, packs=True)
        return self._finished(layer, product) if last else product

    def _widened(self, z: _Tiles, columns: Columns) -> _Tiles:
        """`z` over its own and the given columns."""
        at = _places(z.columns, columns)
        if (at < z.columns.size).all() and np.array_equal(z.columns[at], columns):
            return z
        union = np.union1d(z.columns, columns).astype(np.int32)
        wide = _Tiles(self._buffers, z.size, union, z.tile)
        lane_of = _lanes(z.lane_of, _places(union, z.columns), wide.lanes)
        _native.move((z.memory, z.size, z.tile, z.lanes), lane_of, (wide.memory, wide.tile, wide.lanes))
        return wide

    def _multiply(
        self,
        call: Callable[..., None],
        layer: PreparedLayer,
        weights: _Weights,
        source: tuple[Any, ...],
        z: _Target,
        *,
        add: bool,
        last: bool,
        packs: bool,
    ) -> None:
        """One product into `z`, with bias and activation if `last`; `packs` says that C needs memory to pack x in."""
        if not z.lanes:
            return
        code = _FUSED.get(layer.activation.name, 0)
        target = (z.memory, z.tile, z.lanes, add)
        finish = (layer.bias, code, layer.activation.parameter, z.marks if last else _NO_MARKS)
        threads, chunks, packed = self._shares(weights, z)
        memory = self._packing.take(weights.width * packed) if packs else _NONE
        # What takes long lets go of the interpreter, so others of this process may go on.
        with standing_aside(weights.nnz * z.lanes > _WORTH_SHARING):
            call(weights.block, source, target, finish, (threads, chunks, memory))
        if packs:
            self._packing.give(memory)

    def _finished(self, layer: PreparedLayer, z: _Tiles) -> _Tiles:
        """`z`, of which all lanes are marked, once its last product is there."""
        if layer.activation.name not in _FUSED:
            # Softmax is left to the client, which has all neurons.
            if layer.activation.elementwise:
                layer.activation.apply(z.memory[: z.size * z.lanes])
            z.marks = self._marks(z)
        if layer.keeps_zero:
            live = z.marks[: z.columns.size] != 0
            if np.count_nonzero(live) <= _WORTH_CUTTING * live.size:
                z.keep(live)
        return z

    def _marks(self, z: _Tiles) -> npt.NDArray[np.uint8]:
        marks: npt.NDArray[np.bool_] = (z.rows() != 0).any(axis=0)
        return marks.astype(np.uint8)

    def _shares(self, weights: _Weights, z: _Target) -> tuple[int, int, int]:
        """How many threads a product is worth, in how many chunks each tile is cut, and how many lanes are packed."""
        if weights.nnz * z.lanes < _WORTH_SHARING:
            return 1, 1, min(z.tile, z.lanes)
        tiles, threads = -(-z.lanes // z.tile), min(self.threads, _MOST_THREADS)
        chunks = 1 if threads == 1 or tiles >= 4 * threads else min(-(-4 * threads // tiles), max(weights.groups, 1))
        return threads, chunks, z.lanes if chunks > 1 else threads * min(z.tile, z.lanes)


def _rows_of(rows: Rows | Table) -> tuple[Float32s, int, int]:
    """The values as one tile, its width and its lanes."""
    columns = rows.columns.size
    return np.ascontiguousarray(rows.values), max(columns, 1), columns


def _numbers_of(rows: Rows | Table, width: int) -> Int32s:
    if isinstance(rows, Rows) or rows.numbers is None:
        return _NO_LANES
    return rows.numbers.astype(np.int32) if rows.values.shape[0] > 1 else _one_row(width)


def _by_sample(inputs: SparseRows, samples: int) -> SparseSamples:
    starts, rows = np.zeros(samples + 1, np.int64), np.empty(inputs.indices.size, np.int32)
    values = np.empty(inputs.data.size, np.float32)
    _native.turn((inputs.indptr.astype(np.int64), inputs.indices, inputs.data), (starts, rows, values))
    return SparseSamples(starts, rows, values)
