"""What a kernel is: it holds the weights of a layer as it likes best, and activations as it likes best.

The loop over layers sees neither: it hands on what the kernel gave it, and asks for rows where they are to be sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fsdcore.activations import Activation, FloatArray
from fsdcore.codec import Columns, Rows, Table

if TYPE_CHECKING:
    import scipy.sparse as sp

    from fsdcore.plan import LayerPart, Send

__all__ = [
    "SAMPLES_TOGETHER",
    "Activations",
    "Block",
    "Kernel",
    "PreparedLayer",
    "SparseRows",
    "SparseSamples",
    "Strip",
    "visiting_order",
]

Index = npt.NDArray[np.int32]

# Kernels take the inputs of so many samples at a time, or of several times as many.
SAMPLES_TOGETHER = 64


class SparseRows(NamedTuple):
    """Inputs by neuron, CSR `(rows, samples)`: integers, int32, float32."""

    indptr: npt.NDArray[np.integer]
    indices: Index
    data: FloatArray


class SparseSamples(NamedTuple):
    """Inputs by sample, CSR `(samples, rows)`: integers, int32, float32."""

    indptr: npt.NDArray[np.integer]
    indices: Index
    data: FloatArray


class Strip(NamedTuple):
    """The inputs of consecutive samples of a batch: `samples` of them, from number `start` on.

    `start` is a multiple of `SAMPLES_TOGETHER`, and so is `samples` but for the last strip.
    """

    start: int
    samples: int
    values: SparseRows | SparseSamples


@dataclass(frozen=True, eq=False)
class Block:
    """Weights of some rows over some columns, CSR `(rows, width)`: int32, int32, float32.

    `order` int32 `(rows,)` is the order in which the rows are best visited; results do not depend on it.
    """

    indptr: Index
    indices: Index
    data: FloatArray
    width: int
    order: Index

    @property
    def shape(self) -> tuple[int, int]:
        return self.indptr.size - 1, self.width

    @property
    def nnz(self) -> int:
        return int(self.data.size)

    @property
    def memory_bytes(self) -> int:
        """What the arrays take."""
        return self.indptr.nbytes + self.indices.nbytes + self.data.nbytes + self.order.nbytes

    def matrix(self) -> sp.csr_array:
        """The block for scipy, which shares its arrays."""
        import scipy.sparse as sp

        return sp.csr_array((self.data, self.indices, self.indptr), shape=self.shape)


def visiting_order(indptr: npt.NDArray[np.integer], indices: Index) -> Index:
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


class Activations(ABC):
    """Rows of activations on one rank, in the kernel's own form.

    `columns` int32, ascending: the samples held; all others are zero. `size` is how many rows there are.
    """

    columns: Columns
    size: int

    @abstractmethod
    def rows(self, positions: Index | None = None) -> FloatArray:
        """The rows at `positions`, or all: float32 `(rows, len(columns))`, C-contiguous, not to be written to."""


@dataclass(frozen=True, eq=False)
class PreparedLayer:
    """A layer of one rank with its blocks in the kernel's own form.

    `ranks` are the sources, ascending, and `widths` how many rows come from each; `blocks[0]` is the local block.
    """

    rows: int
    sends: tuple[Send, ...]
    ranks: tuple[int, ...]
    widths: tuple[int, ...]
    bias: FloatArray
    activation: Activation
    keeps_zero: bool
    blocks: tuple[Any, ...]


class Kernel(ABC):
    """Multiplies. One kernel serves one worker; its calls may be made from several threads, for different batches.

    For each layer the caller makes `first` or `local`, then `add` for each source in the order of the layer's `ranks`.
    The last of these calls also does bias and activation, and drops samples that have died where that is exact.
    A value is the sum of the blocks' products in that order, so it does not depend on threads, samples beside it, or
    the columns that a source happened to send.
    """

    name: ClassVar[str]

    def prepare(self, part: LayerPart) -> PreparedLayer:
        """`part` in this kernel's form; `part` itself is needed no longer."""
        return PreparedLayer(
            rows=part.rows,
            sends=part.sends,
            ranks=tuple(source.rank for source in part.sources),
            widths=tuple(source.block.width for source in part.sources),
            bias=part.bias,
            activation=part.activation,
            keeps_zero=part.keeps_zero,
            blocks=tuple(self._block(block) for block in (part.local, *(source.block for source in part.sources))),
        )

    @abstractmethod
    def _block(self, block: Block) -> Any:
        """A block in this kernel's form."""

    @abstractmethod
    def first(self, layer: PreparedLayer, strip: Strip, samples: int, z: Activations | None = None) -> Activations:
        """Layer 1 of `samples` samples, over the input rows it reads, strip by strip in order.

        `z` is what the strip before gave, and must not be used again; the last strip gives the activations.
        """

    @abstractmethod
    def local(self, layer: PreparedLayer, x: Activations, samples: int) -> Activations:
        """The product of the local block with this rank's own rows `x`."""

    @abstractmethod
    def add(self, layer: PreparedLayer, number: int, rows: Rows | Table, z: Activations) -> Activations:
        """`z` and the product of what source `number` sent; `z` itself must not be used again."""

    def close(self) -> None:  # noqa: B027 - most share nothing
        """Give back this kernel's share of the processors; it must not be used again. May be called twice."""
