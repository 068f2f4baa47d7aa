"""Objects made of segments that can be read one at a time.

Layout: 4 bytes magic ``FSDS``, 4 bytes length of the index and 4 bytes its CRC-32 (little endian), the index as JSON,
then the segments one after another, each compressed, with a checksum. A reader asks for the front of the object, which
usually holds the index and, for a small object, everything; then for the ranges it needs.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from fsdcore.contracts.store import Store
from fsdcore.decoding import UNPACK_VARIABLE, from_json, unpack_limit
from fsdcore.errors import WireError
from fsdcore.messages.zstd import compress, decompress

Arrays = dict[str, npt.NDArray[Any]]
_MAGIC = b"FSDS"
_HEAD = struct.Struct("<4sII")
FRONT_BYTES = 256 * 1024
_LARGEST_INDEX = 64 * 1024 * 1024
_LARGEST_SEGMENT = 1 << 40
READ_BYTES = 16 * 1024 * 1024


class Index(msgspec.Struct, frozen=True):
    """Where the segments lie: their sizes as stored and as unpacked, and what the writer says about them."""

    stored: list[int]
    plain: list[int]
    about: dict[str, Any]


def pack_arrays(arrays: Arrays) -> bytes:
    """Arrays as bytes (safetensors)."""
    return safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def unpack_arrays(data: bytes) -> Arrays:
    """What `pack_arrays` was given; `WireError` if it is not that."""
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        # Beside its own error: a dtype that numpy does not have.
        raise WireError(f"damaged arrays: {error}") from error


def compress_segment(plain: bytes) -> tuple[bytes, int]:
    """A segment as `pack_segments` takes it: compressed, and its size before."""
    return compress(plain, checksum=True), len(plain)


def pack_segments(segments: Sequence[tuple[bytes, int]], about: dict[str, Any]) -> bytes:
    """One object of `segments`, each from `compress_segment`; `about` is whatever JSON can hold."""
    index = Index([len(stored) for stored, _ in segments], [plain for _, plain in segments], about)
    encoded = msgspec.json.encode(index)
    return b"".join(
        [_HEAD.pack(_MAGIC, len(encoded), zlib.crc32(encoded)), encoded, *(stored for stored, _ in segments)]
    )


class SegmentReader:
    """Reads an object made by `pack_segments`; each request is a range of the object, of 16 MiB at most.

    `KeyMissingError` if there is no such object, `WireError` if it is damaged.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._front = store.get_range(key, 0, FRONT_BYTES)
        if len(self._front) < _HEAD.size or self._front[:4] != _MAGIC:
            raise WireError(f"object {key} is not made of segments")
        _, length, checksum = _HEAD.unpack_from(self._front)
        if length > _LARGEST_INDEX:
            raise WireError(f"object {key} is damaged: an index of {length} bytes")
        self._base = _HEAD.size + length
        self.index = self._read_index(checksum)
        self._offsets = np.cumsum([self._base, *self.index.stored]).tolist()

    @property
    def about(self) -> dict[str, Any]:
        """What the writer said about the object."""
        return self.index.about

    def __len__(self) -> int:
        return len(self.index.stored)

    def _read_index(self, checksum: int) -> Index:
        encoded = self._range(_HEAD.size, self._base)
        if zlib.crc32(encoded) != checksum:
            raise WireError(f"object {self._key} is damaged: its index has a wrong checksum")
        index = from_json(encoded, Index, lambda reason: WireError(f"object {self._key} is damaged: {reason}"))
        sizes = [*index.stored, *index.plain]
        if len(index.stored) != len(index.plain) or not all(0 <= size <= _LARGEST_SEGMENT for size in sizes):
            raise WireError(f"object {self._key} is damaged: its index contradicts itself")
        return index

    def _range(self, start: int, stop: int) -> bytes:
        if stop <= len(self._front):
            return self._front[start:stop]
        data = self._store.get_range(self._key, start, stop - start)
        if len(data) != stop - start:
            raise WireError(f"object {self._key} is cut short")
        return data

    def read(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The segments of the given ascending numbers, unpacked, one at a time.

        Neighbours are fetched together, so that many small segments cost few requests.
        """
        for group in self._groups(list(numbers)):
            start = self._offsets[group[0]]
            data = memoryview(self._range(start, self._offsets[group[-1] + 1]))
            for number in group:
                self._check(number)
                part = data[self._offsets[number] - start : self._offsets[number + 1] - start]
                yield decompress(part, self.index.plain[number])

    def _check(self, number: int) -> None:
        """`WireError` for a segment that unpacks to more than it may: it says so itself, before anything is made."""
        plain, limit = self.index.plain[number], unpack_limit(self.index.stored[number])
        if plain > limit:
            raise WireError(
                f"a segment of {self._key} unpacks to {plain >> 20:,} MiB, {limit >> 20:,} are the most; "
                f"if it is meant to, set {UNPACK_VARIABLE}, in MiB, to more"
            )

    def _together(self, first: int, number: int) -> bool:
        """Whether one request should bring both: not what is too far apart, nor what is there with what is not."""
        start, stop = self._offsets[first], self._offsets[number + 1]
        there = len(self._front)
        return bool(stop - start <= READ_BYTES and (stop <= there or self._offsets[first + 1] > there))

    def _groups(self, numbers: list[int]) -> Iterator[list[int]]:
        group: list[int] = []
        for number in numbers:
            adjacent = bool(group) and number == group[-1] + 1
            if group and not (adjacent and self._together(group[0], number)):
                yield group
                group = []
            group.append(number)
        if group:
            yield group
