"""Activation rows as bytes: what a data message holds.

The receiver knows from its plan which rows come, in which order, and how many samples the batch has; the bytes say the
rest. Equal rows travel once, and a value that a message holds many times is a byte in it:

* a head: version, flags, then rows, distinct rows, columns, nonzeros of the distinct rows, and the length of the list
  of columns, as uint16, or uint32 if one of them needs it; all numbers are little endian
* the columns (samples) in which any row is not zero, as `sample_lists` writes them: which of all samples or, where
  that is shorter, which of those of the message before; if they are the same, that is no bytes
* compressed, if that is shorter:
    * if rows repeat and are not all equal: for each row the number of its distinct row, uint8, uint16 or uint32 as
      their count needs
    * unless every value is nonzero, where the nonzero ones are, distinct row by distinct row: a bitmap, 8 to the byte,
      or, where they are few and that is shorter, the length (uint32) of their positions as `sample_lists` writes
      them in Rice codes, and those
    * the nonzero values, float32: up to 256 different ones as a palette (their count less one, the values) and, if it
      has more than one, a byte for each; else all of them, either way with byte planes apart

"The message before" is the last one with any row in it, of the same batch, from the same source to the same target.
Both ends go through the layers in order and read each message once, whatever comes twice or late, so both know it.

What this saves, on real activations and on random values, is in ``docs/performance.md``; the paper's simpler scheme is
in its section III-C.
"""

from __future__ import annotations

import itertools
import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Bools, Float32s
from fsdcore.errors import FrameTooLargeError, WireError
from fsdcore.messages.distinct_rows import Choice, RowTable
from fsdcore.messages.frames import EMPTY, ROWS, Body
from fsdcore.messages.sample_lists import ALL, RICE, Columns, Listed, decode_columns, encode_columns, read_columns
from fsdcore.messages.zstd import compress, decompress

Words = npt.NDArray[np.uint32]

_VERSION = 1
_LEVEL = 3
_WORTH_COMPRESSING = 48
# Contents up to so many bytes are kept for other targets: long ones are seldom the same.
_WORTH_KEEPING = 64 * 1024
_SMALL, _WIDE = struct.Struct("<BBHHHHH"), struct.Struct("<BBIIIII")
_LARGEST_SMALL = 0xFFFF
# Flags: two bits for the form of the columns, then one each.
_COLUMN_FORM, _IS_WIDE, _COMPRESSED, _PALETTE, _WITHIN, _FEW = 0x03, 0x04, 0x08, 0x10, 0x20, 0x40
_KNOWN_FLAGS = _COLUMN_FORM | _IS_WIDE | _COMPRESSED | _PALETTE | _WITHIN | _FEW
# Where a nonzero is in every eighth place or less, positions in Rice codes may be shorter than a compressed bitmap.
_FEW_OF = 8
_MOST_POSITIONS = 1 << 31
_LENGTH = struct.Struct("<I")
_MOST_COLOURS = 256
# A palette is tried if a look at so many values finds no more than half a palette of different ones.
_PROBE = 256


class Rows(NamedTuple):
    """Rows of activations: `values` float32 `(rows, len(columns))`; samples not in `columns` are zero."""

    columns: Columns
    values: Float32s


class Table(NamedTuple):
    """Rows of which some may be equal: row i is ``values[numbers[i]]``, or ``values[i]`` where `numbers` is None.

    `values` float32 `(distinct, len(columns))`, `numbers` unsigned `(rows,)`; samples not in `columns` are zero.
    """

    columns: Columns
    values: Float32s
    numbers: npt.NDArray[np.unsignedinteger] | None

    def rows(self) -> Rows:
        """Each row by itself."""
        return Rows(self.columns, self.values if self.numbers is None else self.values[self.numbers])


class Encoded(NamedTuple):
    """A message's body, and what it holds: rows with any nonzero, nonzeros, and the columns (None if no row)."""

    body: Body
    rows: int
    nonzeros: int
    columns: Columns | None


def _planes(words: Words) -> bytes:
    return words.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4).T.tobytes()


def _palette(words: Words) -> tuple[Words, npt.NDArray[np.uint8]] | None:
    """The different values and the number of each; None if they are more than a palette holds."""
    colours = np.unique(words[:: max(1, words.size // _PROBE)])
    while colours.size <= _MOST_COLOURS:
        number = np.minimum(np.searchsorted(colours, words), colours.size - 1)
        others = words[colours[number] != words]
        if others.size == 0:
            return colours, number.astype(np.uint8)
        if colours.size > _PROBE // 2:
            return None
        colours = np.union1d(colours, others[: 4 * _PROBE])
    return None


def _write_values(values: Float32s) -> tuple[int, bytes]:
    """The flag and the bytes of the nonzero values."""
    words = values.view(np.uint32)
    same = bool((words == words[0]).all())
    found = (words[:1], words[:0].astype(np.uint8)) if same else _palette(words)
    # A palette of as many values as there are would only add to them.
    if found is None or 2 * found[0].size > words.size > 1:
        return 0, _planes(words)
    colours, number = found
    return _PALETTE, bytes([colours.size - 1]) + _planes(colours) + (number.tobytes() if colours.size > 1 else b"")


_MAP_BYTES = {"<u1": 1, "<u2": 2, "<u4": 4}


def _map_dtype(distinct: int) -> str:
    return "<u1" if distinct <= 1 << 8 else "<u2" if distinct <= 1 << 16 else "<u4"


class RowEncoder:
    """Encodes rows of `x` for one target after another, in a batch of `samples`; what they share is done once.

    `encode` may be called from several threads.
    """

    def __init__(self, x: Rows, samples: int) -> None:
        self._samples = samples
        table = RowTable.of(x.values)
        live = table.live()
        # The same array where all are live: that it is the one of the message before is then seen at once.
        self._columns, self._table = x.columns if live.all() else x.columns[live], table.over(live)
        self._all_columns = encode_columns(self._columns, samples)
        self._done: dict[tuple[bytes, bytes], _Content] = {}

    def encode(self, positions: npt.NDArray[np.integer] | None = None, before: Columns | None = None) -> Encoded:
        """The rows at `positions`, or all; nothing but a header's worth if all are zero.

        `before` are the columns of the message before, if the receiver is sure to know them.
        """
        choice = self._table.choose(positions)
        live_rows, nonzeros = self._table.count(choice)
        if nonzeros == 0:
            return Encoded(Body(EMPTY, b""), 0, 0, None)
        key = choice.key
        # Targets that get the same distinct rows get the same bytes but for the head.
        content = self._done.get(key) or self._content(choice)
        if len(content.plain) <= _WORTH_KEEPING:
            self._done[key] = content
        return Encoded(_body(choice.rows, content, before), live_rows, nonzeros, content.columns)

    def _content(self, choice: Choice) -> _Content:
        columns, listed, shape, values, present = self._picked(choice)
        cells, numbers = values.size, choice.numbers
        mapped = b"" if numbers is None else numbers.astype(_map_dtype(shape[0])).tobytes()
        where = [(0, b"")] if present is None else _whereabouts(present, cells)
        flag, written = _write_values(values)
        forms = [(flag | few, [mapped, places, written]) for few, places in where]
        # A message is large beside the rest of a worker: what it was made of goes before it is compressed.
        del values, present, written, where
        flag, plain = min(itertools.starmap(_shortest, forms), key=lambda form: len(form[1]))
        return _Content(flag, (*shape, cells), columns, listed, plain)

    def _picked(self, choice: Choice) -> tuple[Columns, Listed, tuple[int, int], Float32s, Bools | None]:
        """Of the rows chosen: the columns, their shape, the nonzero values, and where those are, None if everywhere."""
        values, present = self._table.pick(choice.distinct)
        cells = int(np.count_nonzero(present))
        columns, listed = self._columns, self._all_columns
        if cells < values.size:
            live = present.any(axis=0)
            if not live.all():
                values, present = values[:, live], present[:, live]
                columns = self._columns[live]
                listed = encode_columns(columns, self._samples)
        shape = (values.shape[0], values.shape[1])
        if cells == values.size:
            return columns, listed, shape, np.ravel(values), None
        return columns, listed, shape, values[present], present


def _whereabouts(present: Bools, cells: int) -> list[tuple[int, bytes]]:
    """Where the nonzeros are, as a bitmap and, where it may be shorter, as positions; with the flag of each."""
    bitmap = (0, np.packbits(present).tobytes())
    if not _FEW_OF * cells <= present.size < _MOST_POSITIONS:
        return [bitmap]
    form, positions = encode_columns(np.flatnonzero(present).astype(np.int32), present.size)
    return [bitmap, (_FEW, _LENGTH.pack(len(positions)) + positions)] if form == RICE else [bitmap]


def _shortest(flags: int, parts: list[bytes]) -> tuple[int, bytes]:
    """`parts`, which are taken, compressed if that is shorter, and the flags that say so."""
    plain = b"".join(parts)
    parts.clear()
    if len(plain) >= _WORTH_COMPRESSING:
        packed = compress(plain, _LEVEL)
        if len(packed) < len(plain):
            return flags | _COMPRESSED, packed
    return flags, plain


class _Content(NamedTuple):
    """A message but for its number of rows: flags, the other counts, the columns, and what follows them."""

    flags: int
    counts: tuple[int, ...]
    columns: Columns
    listed: Listed
    plain: bytes

    def listed_after(self, before: Columns | None) -> tuple[int, bytes]:
        """The flags and the bytes of the columns, where the receiver knows those of the message `before`."""
        form, listed = self.listed
        if before is not None:
            within = _within(self.columns, before)
            if within is not None and len(within[1]) < len(listed):
                return _WITHIN | within[0], within[1]
        return form, listed


def _within(columns: Columns, before: Columns) -> Listed | None:
    """Which of `before` the `columns` are; None if some are not among them."""
    if columns is before or (columns.size == before.size and bool((columns == before).all())):
        return ALL, b""
    places = np.searchsorted(before, columns)
    if columns.size > before.size or places[-1] == before.size or not np.array_equal(before[places], columns):
        return None
    return encode_columns(places.astype(np.int32), before.size)


def _body(rows: int, content: _Content, before: Columns | None) -> Body:
    form, listed = content.listed_after(before)
    counts, flags, head = (rows, *content.counts, len(listed)), content.flags | form, _SMALL
    if max(counts) > _LARGEST_SMALL:
        head, flags = _WIDE, flags | _IS_WIDE
    try:
        return Body(ROWS, b"".join([head.pack(_VERSION, flags, *counts), listed, content.plain]))
    except struct.error as error:
        raise FrameTooLargeError(f"a message of {rows} rows has counts beyond 32 bits; use smaller batches") from error


def encode_rows(rows: Rows, samples: int) -> Encoded:
    """Encode all of `rows` of a batch of `samples`."""
    return RowEncoder(rows, samples).encode()


class _Head(NamedTuple):
    """What the head of a message says, and how many bytes that makes of each part after the list of columns."""

    flags: int
    rows: int
    distinct: int
    width: int
    nonzeros: int
    map_bytes: int
    bitmap_bytes: int

    @property
    def most_plain(self) -> int:
        """The most bytes that map, bitmap or positions, and values can take."""
        return self.map_bytes + _LENGTH.size + self.bitmap_bytes + 4 * self.nonzeros + 1 + 4

    @property
    def least_plain(self) -> int:
        """They take more bytes than this."""
        return self.map_bytes + (_LENGTH.size if self.flags & _FEW else self.bitmap_bytes)


def _read_head(data: memoryview, rows: int, samples: int) -> tuple[_Head, int, int]:
    """The head, and where the list of columns begins and ends."""
    if len(data) < _SMALL.size or data[0] != _VERSION:
        raise WireError("rows of an unknown version" if len(data) else "a message cut short")
    layout = _WIDE if data[1] & _IS_WIDE else _SMALL
    if len(data) < layout.size or data[1] & ~_KNOWN_FLAGS:
        raise WireError("a message cut short, or with unknown flags")
    _, flags, found, distinct, width, nonzeros, listed = layout.unpack_from(data)
    if found != rows or width > samples or not 0 < distinct <= rows:
        raise WireError(f"a message of {found} x {width} values where {rows} x {samples} fit at most")
    cells = distinct * width
    few = flags & _FEW and not nonzeros < cells < _MOST_POSITIONS
    if few or not 0 < nonzeros <= cells or listed > len(data) - layout.size:
        raise WireError("a message whose counts contradict each other")
    map_bytes = rows * _MAP_BYTES[_map_dtype(distinct)] if 1 < distinct < rows else 0
    bitmap_bytes = (cells + 7) // 8 if nonzeros < cells else 0
    head = _Head(flags, rows, distinct, width, nonzeros, map_bytes, bitmap_bytes)
    return head, layout.size, layout.size + listed


class Message:
    """A message that has been opened: its columns are known, its values are made where and when they are wanted."""

    def __init__(self, columns: Columns, rows: int, plain: memoryview, head: _Head | None) -> None:
        self.columns = columns
        self._rows, self._plain, self._head = rows, plain, head

    @property
    def size(self) -> int:
        """The bytes it holds."""
        return len(self._plain)

    def table(self) -> Table:
        """The rows, of which those that are equal are there once."""
        head = self._head
        if head is None:
            return Table(self.columns, np.empty((self._rows, 0), np.float32), None)
        return Table(self.columns, self._table(head), self._numbers(head))

    def _numbers(self, head: _Head) -> npt.NDArray[np.unsignedinteger] | None:
        if not head.map_bytes:
            return None if head.distinct == head.rows else _zeros(head.rows)
        numbers = np.frombuffer(self._plain[: head.map_bytes], _map_dtype(head.distinct))
        if np.maximum.reduce(numbers) >= head.distinct:
            raise WireError("a message that repeats rows it does not have")
        return numbers

    def _table(self, head: _Head) -> Float32s:
        """The distinct rows, `(distinct, width)`."""
        start, cells = head.map_bytes, head.distinct * head.width
        if not head.bitmap_bytes:
            return self._values(head, self._plain[start:]).reshape(head.distinct, head.width)
        where: Columns | npt.NDArray[np.bool_]
        if head.flags & _FEW:
            where, start = self._positions(head, cells)
        else:
            where, start = self._bitmap(head, cells), start + head.bitmap_bytes
        table = np.zeros(cells, np.float32)
        table[where] = self._values(head, self._plain[start:])
        return table.reshape(head.distinct, head.width)

    def _bitmap(self, head: _Head, cells: int) -> npt.NDArray[np.bool_]:
        """Where the nonzero values are, `(cells,)`."""
        bits = np.unpackbits(np.frombuffer(self._plain[head.map_bytes :], np.uint8, head.bitmap_bytes))
        if np.count_nonzero(bits) != head.nonzeros or bits[cells:].any():
            raise WireError("a message whose bitmap and values disagree")
        return bits[:cells].view(bool)

    def _positions(self, head: _Head, cells: int) -> tuple[Columns, int]:
        """Where the nonzero values are, `(nonzeros,)`, and where in the message the values begin."""
        start = head.map_bytes + _LENGTH.size
        end = start + _LENGTH.unpack_from(self._plain, head.map_bytes)[0]
        return read_columns(RICE, self._plain[start:end], head.nonzeros, cells), end

    def _values(self, head: _Head, data: memoryview) -> Float32s:
        """The nonzero values, `(nonzeros,)`."""
        if not head.flags & _PALETTE:
            return _from_planes(data, head.nonzeros)
        colours = data[0] + 1 if len(data) else 0
        palette = _from_planes(data[1 : 1 + 4 * colours], colours)
        if colours == 1 and len(data) == 5:
            values = np.empty(head.nonzeros, np.float32)
            values.fill(palette[0])
            return values
        number = np.frombuffer(data[1 + 4 * colours :], np.uint8)
        if colours <= 1 or number.size != head.nonzeros or np.maximum.reduce(number) >= colours:
            raise WireError("a message whose palette and values disagree")
        return palette[number]


@lru_cache(maxsize=8)
def _zeros(count: int) -> npt.NDArray[np.uint8]:
    """Read-only."""
    zeros = np.zeros(count, np.uint8)
    zeros.setflags(write=False)
    return zeros


def _from_planes(data: memoryview, count: int) -> Float32s:
    if len(data) != 4 * count:
        raise WireError(f"a message with {len(data)} bytes for {count} values")
    if count == 1:
        return np.frombuffer(data, "<f4")
    planes = np.frombuffer(data, np.uint8).reshape(4, count)
    return np.ascontiguousarray(planes.T).reshape(-1).view("<f4").astype(np.float32, copy=False)


def _columns(head: _Head, listed: memoryview, samples: int, before: Columns | None) -> Columns:
    form = head.flags & _COLUMN_FORM
    if not head.flags & _WITHIN:
        return decode_columns(form, listed, head.width, samples)
    if before is None or head.width > before.size:
        raise WireError("a message whose samples are among those of another, which does not fit")
    places = decode_columns(form, listed, head.width, before.size)
    # The same array again where nothing has changed: others find out sooner.
    return before if head.width == before.size else before[places]


def open_rows(body: Body, rows: int, samples: int, before: Columns | None = None) -> Message:
    """Open a message of the `rows` expected of a batch of `samples`; `before` are the columns of the message before.

    `WireError`, here or when the values are asked for, if it holds anything else; what is allocated is bounded by
    `rows` and `samples`, whatever the bytes say.
    """
    if not body.data:
        return Message(np.empty(0, np.int32), rows, memoryview(b""), None)
    if body.encoding != ROWS:
        raise WireError(f"a message in encoding {body.encoding} where rows were expected")
    data = memoryview(body.data)
    head, start, end = _read_head(data, rows, samples)
    columns = _columns(head, data[start:end], samples, before)
    plain = data[end:]
    if head.flags & _COMPRESSED:
        plain = memoryview(decompress(plain, head.most_plain))
    if not head.least_plain < len(plain) <= head.most_plain:
        raise WireError(f"a message of {len(plain)} bytes does not hold what it says")
    return Message(columns, rows, plain, head)


def decode_rows(body: Body, rows: int, samples: int) -> Rows:
    """Decode the `rows` expected of a batch of `samples`; `WireError` as `open_rows`."""
    return open_rows(body, rows, samples).table().rows()
