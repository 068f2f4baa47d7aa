"""The loop over layers: the partitioned sparse product, for one batch on one rank (paper, section III-B).

For layer k a rank sends the rows of ``x^(k-1)`` that others need, multiplies its local block while they travel, then
adds the block of each other rank in rank order, whatever the order of arrival, so that results are the same to the bit.

Samples are dropped as they die: a rank carries only those in which it holds or has received anything, which is exact
where ``f(b) = 0`` for its rows; where it is not, all samples are carried.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from fsdcore.activations import FloatArray
from fsdcore.channel import Slot
from fsdcore.codec import Columns, Rows, decode_rows, encode_rows
from fsdcore.errors import FsdError
from fsdcore.kernels import multiply_add
from fsdcore.messenger import Messenger
from fsdcore.plan import LayerPart
from fsdcore.record import Recorder
from fsdcore.wire import DATA, Body

__all__ = ["BatchLoop"]

# Below this share of live samples, the dead ones are cut out.
_WORTH_CUTTING = 0.9
# Samples of the input that are multiplied at a time: the product is sparse at first, and larger so.
_FIRST_WIDTH = 512


def _spread(rows: Rows, columns: Columns) -> FloatArray:
    """The values of `rows` over `columns`, which include all of its own; zero elsewhere."""
    if rows.columns.size == columns.size:
        return rows.values
    values = np.zeros((rows.values.shape[0], columns.size), np.float32)
    values[:, np.searchsorted(columns, rows.columns)] = rows.values
    return values


def _widen(z: Rows, columns: Columns) -> Rows:
    """`z` over its own and the given columns."""
    at = np.searchsorted(z.columns, columns)
    inside = at < z.columns.size
    if inside.all() and np.array_equal(z.columns[at], columns):
        return z
    union = np.union1d(z.columns, columns).astype(np.int32)
    return Rows(union, _spread(z, union))


def _cut_dead(z: Rows) -> Rows:
    live = (z.values != 0).any(axis=0)
    if np.count_nonzero(live) > _WORTH_CUTTING * live.size:
        return z
    return Rows(z.columns[live], np.ascontiguousarray(z.values[:, live]))


class BatchLoop:
    """One batch of `samples` on one rank.

    It holds the rank's rows of the last layer that was run: `first` runs layer 1, `later` each that follows, `encode`
    gives them as bytes. At most two activations are held at a time, and what one message holds.
    """

    def __init__(self, messenger: Messenger | None, recorder: Recorder, batch: int, samples: int) -> None:
        self._messenger, self._recorder = messenger, recorder
        self._batch, self._samples = batch, samples
        self._x = Rows(np.empty(0, np.int32), np.empty((0, 0), np.float32))

    def first(self, part: LayerPart, inputs: sp.csr_array) -> None:
        """Layer 1, over the input rows it reads, CSR `(len(input_rows), samples)`."""
        with self._recorder.timed("multiply"):
            by_sample = sp.csc_array(inputs)
            columns = self._all()
            if part.keeps_zero:
                columns = np.flatnonzero(np.diff(by_sample.indptr)).astype(np.int32)
                by_sample = sp.csc_array(by_sample[:, columns])
            z = np.zeros((part.rows, columns.size), np.float32)
            for start in range(0, columns.size, _FIRST_WIDTH):
                stop = start + _FIRST_WIDTH
                z[:, start:stop] = (part.local @ by_sample[:, start:stop]).toarray()
            self._x = self._activate(part, Rows(columns, z))

    def later(self, number: int, part: LayerPart) -> None:
        """Layer `number` of 2 and up."""
        slot = Slot(DATA, self._batch, number)
        if self._messenger is not None:
            self._messenger.expect(slot, [source.rank for source in part.sources])
            self._send(self._messenger, slot, part, self._x)
        self._x = self._local(part, self._x)
        for source in part.sources:
            self._x = self._add(slot, source.rank, source.block, self._x)
        with self._recorder.timed("multiply"):
            self._x = self._activate(part, self._x)

    def encode(self) -> tuple[Body, int]:
        """This rank's rows as the body of a message, and how many there are."""
        with self._recorder.timed("encode"):
            return encode_rows(self._x, self._samples).body, self._x.values.shape[0]

    def _all(self) -> Columns:
        return np.arange(self._samples, dtype=np.int32)

    def _send(self, messenger: Messenger, slot: Slot, part: LayerPart, x: Rows) -> None:
        parts: list[tuple[int, Body]] = []
        with self._recorder.timed("encode"):
            for send in part.sends:
                encoded = encode_rows(Rows(x.columns, x.values[send.rows]), self._samples)
                self._recorder.add("rows_sent", encoded.rows)
                self._recorder.add("nonzeros_sent", encoded.nonzeros)
                parts.append((send.rank, encoded.body))
        if parts:
            messenger.send(slot, parts)

    def _local(self, part: LayerPart, x: Rows) -> Rows:
        with self._recorder.timed("multiply"):
            columns = x.columns if part.keeps_zero else self._all()
            z = np.zeros((part.rows, columns.size), np.float32)
            multiply_add(part.local, _spread(x, columns), z)
            return Rows(columns, z)

    def _add(self, slot: Slot, rank: int, block: sp.csr_array, z: Rows) -> Rows:
        """`z` with the product of what `rank` sent added."""
        if self._messenger is None:
            raise AssertionError("a plan for one worker reads from no other")
        body = self._messenger.receive(slot, rank)
        try:
            with self._recorder.timed("decode"):
                rows = decode_rows(body, block.shape[1], self._samples)
        except FsdError as error:
            raise error.at(peer=rank) from None
        if rows.columns.size == 0:
            return z
        with self._recorder.timed("multiply"):
            z = _widen(z, rows.columns)
            multiply_add(block, _spread(rows, z.columns), z.values)
        return z

    def _activate(self, part: LayerPart, z: Rows) -> Rows:
        """Bias and activation, in place. Softmax is left to the client, which has all neurons."""
        if part.bias.any():
            np.add(z.values, part.bias[:, None], out=z.values)
        if part.activation.elementwise:
            part.activation.apply(z.values)
        return _cut_dead(z) if part.keeps_zero else z
