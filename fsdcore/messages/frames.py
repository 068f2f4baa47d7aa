"""Frames: what travels on a channel.

A message is one `Body` from one rank to another for one slot (kind, batch, layer). It is cut into frames that fit
the channel. Every frame stands for itself: 42 bytes of header, then its piece of the body.

====== ===== =========================================================
offset bytes field (little endian)
====== ===== =========================================================
0      2     magic ``FS``
2      1     version, 1
3      1     kind: 1 data, 2 abort, 3 collective
4      1     encoding of the body: 0 empty, 1 plain, 2 Zstandard, 3 rows
5      1     reserved, 0
6      8     run
14     4     batch
18     4     layer
22     4     source rank; 4294967295 is the client
26     4     target rank
30     2     piece, from 0
32     2     pieces
34     4     length of the piece in bytes
38     4     CRC-32 of the frame with this field as 0
====== ===== =========================================================

An empty message is a header alone; rows are as `fsdcore.messages.rows` says.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from fsdcore.contracts.channel import Slot
from fsdcore.errors import FrameTooLargeError, WireError
from fsdcore.messages.zstd import compress, decompress

DATA, ABORT, COLLECTIVE = 1, 2, 3
_KINDS = frozenset({DATA, ABORT, COLLECTIVE})
CLIENT = 0xFFFFFFFF
EMPTY, PLAIN, ZSTD, ROWS = 0, 1, 2, 3

_MAGIC = b"FS"
_VERSION = 1
_HEADER = struct.Struct("<2sBBBBQIIIIHHII")
HEADER_BYTES = _HEADER.size
_CRC_AT = HEADER_BYTES - 4
_MAX_PIECES = 0xFFFF


class Body(NamedTuple):
    """The content of a message: how it is encoded, and the bytes."""

    encoding: int
    data: bytes


class Frame(NamedTuple):
    """A frame taken apart; `data` is its piece of the body."""

    run: str
    slot: Slot
    source: int
    target: int
    piece: int
    pieces: int
    encoding: int
    data: memoryview


class Outline(NamedTuple):
    """What a frame says of itself before anything of it has been checked; `size` is that of the whole frame."""

    piece: int
    pieces: int
    size: int


def make_body(plain: bytes, level: int = 1) -> Body:
    """Encode `plain`: compressed if that is shorter."""
    if not plain:
        return Body(EMPTY, b"")
    packed = compress(plain, level)
    return Body(ZSTD, packed) if len(packed) < len(plain) else Body(PLAIN, plain)


def open_body(body: Body, limit: int) -> bytes:
    """What `make_body` was given; `WireError` if it is damaged or would be more than `limit` bytes."""
    if body.encoding == ZSTD:
        return decompress(body.data, limit)
    if body.encoding == ROWS:
        raise WireError("a message of rows where other data were expected")
    if len(body.data) > limit:
        raise WireError(f"a message of {len(body.data)} bytes where at most {limit} are allowed")
    return bytes(body.data)


def build_frames(run: str, slot: Slot, source: int, target: int, body: Body, max_frame_bytes: int) -> Iterator[bytes]:
    """Cut a message into frames of at most `max_frame_bytes`, header included.

    `FrameTooLargeError` if it would need more than 65,535 of them, or a piece, a batch or a layer is beyond 32 bits.
    """
    room = max_frame_bytes - HEADER_BYTES
    pieces = max(1, -(-len(body.data) // room)) if room > 0 else _MAX_PIECES + 1
    if pieces > _MAX_PIECES:
        raise FrameTooLargeError(
            f"a message of {len(body.data)} bytes does not fit {_MAX_PIECES} frames of {max_frame_bytes}; "
            "use smaller batches"
        )
    number = int(run, 16)
    for piece in range(pieces):
        part = body.data[piece * room : (piece + 1) * room]
        fields = (number, slot.batch, slot.layer, source, target, piece, pieces, len(part))
        try:
            head = _HEADER.pack(_MAGIC, _VERSION, slot.kind, body.encoding, 0, *fields, 0)
        except struct.error as error:
            raise FrameTooLargeError(
                f"a frame of {len(part)} bytes of batch {slot.batch} is beyond 32 bits; use smaller batches, or fewer"
            ) from error
        yield head[:_CRC_AT] + struct.pack("<I", zlib.crc32(part, zlib.crc32(head))) + part


def is_marked(data: bytes | memoryview) -> bool:
    """Whether data begin as a frame does, sound or not; what does not is of no run."""
    return data[: len(_MAGIC)] == _MAGIC


def outline(data: bytes | memoryview) -> Outline:
    """The outline of the frame that `data` begin with; `WireError` if they are shorter than a header."""
    if len(data) < HEADER_BYTES:
        raise WireError(f"a frame of {len(data)} bytes is shorter than its header of {HEADER_BYTES}")
    *_, piece, pieces, length, _ = _HEADER.unpack_from(data)
    return Outline(piece, pieces, HEADER_BYTES + length)


def parse_frame(data: bytes | memoryview) -> Frame:
    """Take a frame apart; `WireError` says what is wrong with it. Nothing is copied or allocated for it."""
    view = memoryview(data)
    if len(view) < HEADER_BYTES:
        raise WireError(f"a frame of {len(view)} bytes is shorter than its header of {HEADER_BYTES}")
    magic, version, kind, encoding, reserved, run, *fields, length, crc = _HEADER.unpack_from(view)
    batch, layer, source, target, piece, pieces = fields
    if magic != _MAGIC:
        raise WireError("not a frame: wrong magic")
    if version != _VERSION:
        raise WireError(f"frame version {version}; this release reads version {_VERSION}")
    if length != len(view) - HEADER_BYTES:
        raise WireError(f"a frame says {length} bytes and carries {len(view) - HEADER_BYTES}")
    if zlib.crc32(view[HEADER_BYTES:], zlib.crc32(bytes(view[:_CRC_AT]) + b"\0\0\0\0")) != crc:
        raise WireError("a frame with a wrong checksum")
    if kind not in _KINDS or encoding > ROWS or reserved or piece >= pieces:
        raise WireError(f"a frame with impossible fields: kind {kind}, encoding {encoding}, piece {piece}/{pieces}")
    if encoding == EMPTY and (length or pieces != 1):
        raise WireError("an empty message that carries bytes")
    return Frame(f"{run:016x}", Slot(kind, batch, layer), source, target, piece, pieces, encoding, view[HEADER_BYTES:])
