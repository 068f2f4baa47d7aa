"""Activation rows as bytes: what a data message holds.

The receiver knows from its plan which rows come, in which order, and how many samples the batch has. A message holds
the columns (samples) in which any row is not zero, a bitmap of the nonzeros among them, and the values:

* 12 bytes: rows, columns, nonzeros, each a little-endian uint32
* unless all samples are there: the columns, as differences, uint32, byte planes apart ("shuffled")
* unless every value is nonzero: the bitmap, row by row, 8 to the byte
* the nonzero values, row by row, float32, byte planes apart

and the whole is compressed. Byte planes apart, neighbouring exponents and repeated values (a clipped network has
many) shrink well; see the paper, section III-C, for the simpler scheme this replaces.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsdcore.activations import FloatArray
from fsdcore.errors import WireError
from fsdcore.wire import Body, make_body, open_body

__all__ = ["Columns", "Encoded", "Rows", "decode_rows", "encode_rows"]

Columns = npt.NDArray[np.int32]
_COUNTS = struct.Struct("<III")


class Rows(NamedTuple):
    """Rows of activations: `values` float32 `(rows, len(columns))`; samples not in `columns` are zero."""

    columns: Columns
    values: FloatArray


class Encoded(NamedTuple):
    """A message's body, and what it holds: rows with any nonzero, and nonzeros."""

    body: Body
    rows: int
    nonzeros: int


def _shuffle(array: npt.NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1, 4).T.tobytes()


def _unshuffle(data: memoryview, dtype: str) -> npt.NDArray[np.generic]:
    planes = np.frombuffer(data, np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)


def encode_rows(rows: Rows, samples: int, level: int = 1) -> Encoded:
    """Encode `rows` of a batch of `samples`; nothing but a header's worth if all are zero."""
    columns, values = rows
    present = values != 0
    nonzeros = int(np.count_nonzero(present))
    if nonzeros == 0:
        return Encoded(make_body(b""), 0, 0)
    live_rows = int(np.count_nonzero(present.any(axis=1)))
    if nonzeros < present.size:
        live = present.any(axis=0)
        if not live.all():
            columns, values, present = columns[live], values[:, live], present[:, live]
    parts = [_COUNTS.pack(values.shape[0], columns.size, nonzeros)]
    if columns.size < samples:
        parts.append(_shuffle(np.diff(columns, prepend=np.int32(0)).astype("<u4")))
    if nonzeros < present.size:
        parts.append(np.packbits(present).tobytes())
        values = values[present]
    parts.append(_shuffle(values.astype("<f4", copy=False)))
    return Encoded(make_body(b"".join(parts), level), live_rows, nonzeros)


def _largest(rows: int, samples: int) -> int:
    return _COUNTS.size + 4 * samples + (rows * samples + 7) // 8 + 4 * rows * samples


def _read_columns(data: memoryview, samples: int) -> Columns:
    columns = np.cumsum(_unshuffle(data, "<u4").astype(np.int64))
    if columns.size and (columns[-1] >= samples or (np.diff(columns) <= 0).any()):
        raise WireError("a message whose samples are out of order or out of range")
    return columns.astype(np.int32)


def _read_values(data: memoryview, bitmap: memoryview, shape: tuple[int, int]) -> FloatArray:
    flat = _unshuffle(data, "<f4").astype(np.float32, copy=False)
    if not len(bitmap):
        return flat.reshape(shape)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8))
    size = shape[0] * shape[1]
    present = bits[:size].view(bool)
    if np.count_nonzero(bits) != flat.size or bits[size:].any():
        raise WireError("a message whose bitmap and values disagree")
    values = np.zeros(size, np.float32)
    values[present] = flat
    return values.reshape(shape)


def decode_rows(body: Body, rows: int, samples: int) -> Rows:
    """Decode the `rows` expected of a batch of `samples`.

    `WireError` if the message holds anything else; what is allocated is bounded by `rows` and `samples`, whatever
    the bytes say.
    """
    if not body.data:
        return Rows(np.empty(0, np.int32), np.empty((rows, 0), np.float32))
    plain = memoryview(open_body(body, _largest(rows, samples)))
    if len(plain) < _COUNTS.size:
        raise WireError("a message cut short")
    found, width, nonzeros = _COUNTS.unpack_from(plain)
    if found != rows or width > samples or nonzeros > found * width:
        raise WireError(f"a message of {found} x {width} values where {rows} x {samples} fit at most")
    listed = 4 * width if width < samples else 0
    mapped = (rows * width + 7) // 8 if nonzeros < rows * width else 0
    if len(plain) != _COUNTS.size + listed + mapped + 4 * nonzeros:
        raise WireError(f"a message of {len(plain)} bytes does not hold what it says")
    start = _COUNTS.size + listed
    listed_columns = _read_columns(plain[_COUNTS.size : start], samples)
    columns = listed_columns if listed else np.arange(samples, dtype=np.int32)
    return Rows(columns, _read_values(plain[start + mapped :], plain[start : start + mapped], (rows, width)))
