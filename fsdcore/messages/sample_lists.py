"""Ascending sample numbers as bytes: which samples of a batch a message speaks of.

Three forms, the shortest of which is taken: all samples (no bytes), a bitmap with one bit per sample, or Rice codes of
the gaps between neighbours. Rice codes are within a few percent of the entropy of a random choice of samples and need
no table, so a message of a few hundred samples spends less than one byte on each.

Rice: the low `k` bits of every gap, packed; then, from a byte of its own, every gap's remaining high part in unary
(that many zeros and a one).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fsdcore.errors import WireError

Columns = npt.NDArray[np.int32]
# A form and its bytes.
Listed = tuple[int, bytes]

ALL, BITMAP, RICE = 0, 1, 2
_MOST_LOW_BITS = 31
# Lists of up to so many are remembered; longer ones would take memory that no one counts on.
_SHORT = 16_384


def encode_columns(columns: Columns, samples: int) -> Listed:
    """The form and the bytes of `columns`, ascending, of a batch of `samples`. Rice codes begin with `k`."""
    if columns.size == samples:
        return ALL, b""
    if columns.size > _SHORT:
        return _encode(columns, samples)
    return _encoded(columns.astype(np.int32, copy=False).tobytes(), samples)


# From some layer on all ranks have the same samples in every layer.
@lru_cache(maxsize=32)
def _encoded(listed: bytes, samples: int) -> Listed:
    return _encode(np.frombuffer(listed, np.int32), samples)


def _encode(columns: Columns, samples: int) -> Listed:
    rice = _rice(columns, samples)
    if len(rice) <= (samples + 7) // 8:
        return RICE, rice
    bits = np.zeros(samples, np.uint8)
    bits[columns] = 1
    return BITMAP, np.packbits(bits).tobytes()


def _rice(columns: Columns, samples: int) -> bytes:
    if columns.size == 0:
        return b"\0"
    gaps = np.diff(columns, prepend=np.int32(-1)) - 1
    # The best k for gaps of this mean, if their lengths are geometric.
    low_bits = max(0, int(0.69 * (samples - columns.size) / columns.size).bit_length() - 1)
    ends = np.cumsum((gaps >> low_bits) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, np.uint8)
    unary[ends] = 1
    shifts = np.arange(low_bits, dtype=np.int32)
    low = ((gaps[:, None] >> shifts) & 1).astype(np.uint8)
    return bytes([low_bits]) + np.packbits(low).tobytes() + np.packbits(unary).tobytes()


def decode_columns(form: int, data: memoryview, count: int, samples: int) -> Columns:
    """The `count` columns that `encode_columns` made `data` of, read-only; `WireError` if it is anything else.

    Messages of neighbours and of layers on end often list the same samples, so the last few short lists are remembered.
    """
    if count > _SHORT:
        return _decode(form, data, count, samples)
    return _decoded(form, bytes(data), count, samples)


@lru_cache(maxsize=32)
def _decoded(form: int, data: bytes, count: int, samples: int) -> Columns:
    return _decode(form, memoryview(data), count, samples)


def _decode(form: int, data: memoryview, count: int, samples: int) -> Columns:
    columns = read_columns(form, data, count, samples)
    columns.setflags(write=False)
    return columns


def read_columns(form: int, data: memoryview, count: int, samples: int) -> Columns:
    """As `decode_columns`, but nothing is remembered."""
    if form == ALL and count == samples and not data:
        return np.arange(samples, dtype=np.int32)
    if form == BITMAP and len(data) == (samples + 7) // 8:
        return _from_bitmap(data, count, samples)
    if form == RICE and 0 < len(data) <= (samples + 7) // 8:
        return _from_rice(data, count, samples)
    raise WireError("a message whose list of samples is damaged")


def _from_bitmap(data: memoryview, count: int, samples: int) -> Columns:
    columns = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8))).astype(np.int32)
    if columns.size != count or (count and columns[-1] >= samples):
        raise WireError("a message whose samples are out of order or out of range")
    return columns


def _from_rice(data: memoryview, count: int, samples: int) -> Columns:
    low_bits, low_bytes = data[0], (data[0] * count + 7) // 8
    if low_bits > _MOST_LOW_BITS or len(data) < 1 + low_bytes:
        raise WireError("a message whose list of samples is cut short")
    ends = np.flatnonzero(np.unpackbits(np.frombuffer(data[1 + low_bytes :], np.uint8)))
    if ends.size != count:
        raise WireError("a message whose list of samples has another length")
    gaps = np.diff(ends, prepend=-1) - 1 << low_bits
    if low_bits:
        bits = np.unpackbits(np.frombuffer(data[1 : 1 + low_bytes], np.uint8), count=low_bits * count)
        gaps += bits.reshape(count, low_bits) @ (1 << np.arange(low_bits, dtype=np.int64))
    columns = np.cumsum(gaps + 1) - 1
    if count and columns[-1] >= samples:
        raise WireError("a message whose samples are out of order or out of range")
    return columns.astype(np.int32)
