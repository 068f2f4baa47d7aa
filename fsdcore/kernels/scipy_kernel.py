"""The kernel made with scipy, for machines without the compiled one, and for comparison."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from fsdcore.arrays import Float32s, Int32s
from fsdcore.kernels.base import Activations, Kernel, PreparedLayer, SparseRows, Strip
from fsdcore.messages.rows import Rows, Table
from fsdcore.messages.sample_lists import Columns
from fsdcore.plan.plan import Block

# Floats of x and z that one tile may hold together: both then stay in the second-level cache.
_TILE_FLOATS = 128 * 1024
_NARROWEST, _WIDEST = 64, 4096
# Below this share of live samples, the dead ones are cut out.
_WORTH_CUTTING = 0.9
# Samples of the input that are multiplied at a time: the product is sparse at first, and larger so.
_FIRST_WIDTH = 512


class _Matrix(Activations):
    """Row-major `values`, float32 `(rows, len(columns))`."""

    def __init__(self, columns: Columns, values: Float32s) -> None:
        self.columns, self.values, self.size = columns, values, values.shape[0]

    def rows(self, positions: Int32s | None = None) -> Float32s:
        return self.values if positions is None else self.values[positions]


def _multiply_add(weights: sp.csr_array, x: Float32s, z: Float32s) -> None:
    """``z += weights @ x``, tile by tile of samples.

    Each value of `z` gets its row's products in the order of the row's indices, summed, as one addition, so results
    do not depend on the tiles.
    """
    outputs, inputs = weights.shape
    samples = x.shape[1]
    if weights.nnz == 0 or samples == 0:
        return
    width = min(_WIDEST, max(_NARROWEST, _TILE_FLOATS // (outputs + inputs)))
    if samples <= width + width // 2:
        z += weights @ x
        return
    for start in range(0, samples, width):
        z[:, start : start + width] += weights @ x[:, start : start + width]


def _spread(rows: Rows | _Matrix, columns: Columns) -> Float32s:
    """The values of `rows` over `columns`, which include all of its own; zero elsewhere."""
    if rows.columns.size == columns.size:
        return rows.values
    values = np.zeros((rows.values.shape[0], columns.size), np.float32)
    values[:, np.searchsorted(columns, rows.columns)] = rows.values
    return values


def _widen(z: _Matrix, columns: Columns) -> _Matrix:
    """`z` over its own and the given columns."""
    at = np.searchsorted(z.columns, columns)
    inside = at < z.columns.size
    if inside.all() and np.array_equal(z.columns[at], columns):
        return z
    union = np.union1d(z.columns, columns).astype(np.int32)
    return _Matrix(union, _spread(z, union))


def _cut_dead(z: _Matrix) -> _Matrix:
    live = (z.values != 0).any(axis=0)
    if np.count_nonzero(live) > _WORTH_CUTTING * live.size:
        return z
    return _Matrix(z.columns[live], np.ascontiguousarray(z.values[:, live]))


def _activate(layer: PreparedLayer, z: _Matrix) -> _Matrix:
    """Bias and activation, in place. Softmax is left to the client, which has all neurons."""
    if layer.bias.any():
        np.add(z.values, layer.bias[:, None], out=z.values)
    if layer.activation.elementwise:
        layer.activation.apply(z.values)
    return _cut_dead(z) if layer.keeps_zero else z


def _as_matrix(z: Activations) -> _Matrix:
    if not isinstance(z, _Matrix):
        raise TypeError("activations of another kernel")
    return z


class ScipyKernel(Kernel):
    """CSR weights and row-major activations."""

    name = "scipy"

    def _block(self, block: Block) -> sp.csr_array:
        return block.matrix()

    def first(self, layer: PreparedLayer, strip: Strip, samples: int, z: Activations | None = None) -> Activations:
        """Multiplies 512 samples at a time: a sparse product of all would take more memory than the result."""
        weights, values = layer.blocks[0], strip.values
        arrays, shape = (values.data, values.indices, values.indptr), (weights.shape[1], strip.samples)
        # What is CSR by sample is CSC by row.
        rows = (
            sp.csr_array(arrays, shape=shape) if isinstance(values, SparseRows) else sp.csc_array(arrays, shape=shape)
        )
        by_sample = sp.csc_array(rows)
        if z is None:
            z = _Matrix(np.arange(samples, dtype=np.int32), np.zeros((layer.rows, samples), np.float32))
        product = _as_matrix(z)
        for start in range(0, strip.samples, _FIRST_WIDTH):
            part = weights @ by_sample[:, start : start + _FIRST_WIDTH]
            at = strip.start + start
            product.values[:, at : at + part.shape[1]] = part.toarray()
        return _activate(layer, product) if strip.start + strip.samples == samples else product

    def local(self, layer: PreparedLayer, x: Activations, samples: int) -> Activations:
        """Over the live samples alone where `layer.keeps_zero`, else over all, since zeros become ``f(b)``."""
        mine = _as_matrix(x)
        columns = mine.columns if layer.keeps_zero else np.arange(samples, dtype=np.int32)
        z = _Matrix(columns, np.zeros((layer.rows, columns.size), np.float32))
        _multiply_add(layer.blocks[0], _spread(mine, columns), z.values)
        return z if layer.ranks else _activate(layer, z)

    def add(self, layer: PreparedLayer, number: int, rows: Rows | Table, z: Activations) -> Activations:
        """Adds in place, unless the source has samples that `z` lacks: then `z` is copied over the union."""
        product = _as_matrix(z)
        if rows.columns.size:
            product = _widen(product, rows.columns)
            each = rows if isinstance(rows, Rows) else rows.rows()
            _multiply_add(layer.blocks[number + 1], _spread(each, product.columns), product.values)
        return _activate(layer, product) if number == len(layer.ranks) - 1 else product
