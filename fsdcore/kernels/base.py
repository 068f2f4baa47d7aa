"""What a kernel is: it keeps the weights of a layer, and activations, in whatever form suits it.

The loop over layers knows neither form: it passes on what the kernel gave it, and asks for rows when it has to send
them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Float32s, Int32s
from fsdcore.messages.rows import Rows, Table
from fsdcore.messages.sample_lists import Columns
from fsdcore.network.activations import Activation

if TYPE_CHECKING:
    from fsdcore.plan.plan import Block, LayerPart, Send


# Kernels take the inputs of so many samples at a time, or of several times as many.
SAMPLES_TOGETHER = 64


class SparseRows(NamedTuple):
    """Inputs by neuron, CSR `(rows, samples)`: integers, int32, float32."""

    indptr: npt.NDArray[np.integer]
    indices: Int32s
    data: Float32s


class SparseSamples(NamedTuple):
    """Inputs by sample, CSR `(samples, rows)`: integers, int32, float32."""

    indptr: npt.NDArray[np.integer]
    indices: Int32s
    data: Float32s


class Strip(NamedTuple):
    """The inputs of consecutive samples of a batch: `samples` of them, from number `start` on.

    `start` is a multiple of `SAMPLES_TOGETHER`, and so is `samples` but for the last strip.
    """

    start: int
    samples: int
    values: SparseRows | SparseSamples


class Activations(ABC):
    """Rows of activations on one rank, in the kernel's own form.

    `columns` int32, ascending: the samples held; all others are zero. `size` is how many rows there are.
    """

    columns: Columns
    size: int

    @abstractmethod
    def rows(self, positions: Int32s | None = None) -> Float32s:
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
    bias: Float32s
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
