"""Objects made of segments: whole, in part, and damaged."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsdcore.messages.segments
from fsd_local.stores import MemoryStore
from fsdcore.errors import KeyMissingError, WireError
from fsdcore.messages.segments import SegmentReader, compress_segment, pack_arrays, pack_segments, unpack_arrays

KEY = "plans/some/0"


class RecordingStore(MemoryStore):
    """Remembers the ranges it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[tuple[int, int]] = []

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.ranges.append((start, length))
        return super().get_range(key, start, length)


def packed(segments: list[bytes], about: dict[str, Any] | None = None) -> bytes:
    return pack_segments([compress_segment(segment) for segment in segments], about or {})


def store_of(data: bytes) -> RecordingStore:
    store = RecordingStore()
    store.put(KEY, data)
    return store


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not shrink."""
    return np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize("front", [12, 60, 1 << 18])
@given(
    segments=st.lists(st.binary(max_size=200), max_size=12),
    about=st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.lists(st.text(max_size=3)), max_size=3),
    wanted=st.sets(st.integers(0, 11)),
    read=st.integers(1, 300),
)
def test_any_segments_come_back_whatever_is_read_at_once(
    front: int, segments: list[bytes], about: dict[str, Any], wanted: set[int], read: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsdcore.messages.segments, "FRONT_BYTES", front)
        patch.setattr(fsdcore.messages.segments, "READ_BYTES", read)
        reader = SegmentReader(store_of(packed(segments, about)), KEY)
        numbers = sorted(number for number in wanted if number < len(segments))
        assert (len(reader), reader.about) == (len(segments), about)
        assert list(reader.read(numbers)) == [segments[number] for number in numbers]


@given(
    st.dictionaries(
        st.text("abc.", min_size=1, max_size=4),
        st.tuples(st.sampled_from(["int32", "float32", "int64", "uint8"]), st.lists(st.integers(0, 3), max_size=3)),
        max_size=4,
    ),
)
def test_arrays_come_back_as_they_were(kinds: dict[str, tuple[str, list[int]]]) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 99, shape).astype(dtype) for name, (dtype, shape) in kinds.items()}
    found = unpack_arrays(pack_arrays(arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[name], array)


def test_arrays_may_lie_in_memory_in_any_order() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4).T[::2]
    assert np.array_equal(unpack_arrays(pack_arrays({"a": array}))["a"], array)


def test_a_small_object_is_one_request() -> None:
    store = store_of(packed([b"one", b"two", b"three"]))
    assert list(SegmentReader(store, KEY).read([0, 2])) == [b"one", b"three"]
    assert len(store.ranges) == 1


def test_neighbours_are_read_together_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdcore.messages.segments, "FRONT_BYTES", 512)
    monkeypatch.setattr(fsdcore.messages.segments, "READ_BYTES", 2_500)
    segments = [noise(1_000, seed) for seed in range(8)]
    store = store_of(packed(segments))
    reader = SegmentReader(store, KEY)
    numbers = [0, 1, 2, 3, 5, 7]
    assert list(reader.read(numbers)) == [segments[number] for number in numbers]
    # The front; 0 and 1, 2 and 3 together; 5 and 7 alone.
    assert len(store.ranges) == 5
    assert all(length <= 2_500 for _, length in store.ranges)


def test_segments_are_read_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdcore.messages.segments, "FRONT_BYTES", 512)
    monkeypatch.setattr(fsdcore.messages.segments, "READ_BYTES", 1)
    segments = [noise(1_000, seed) for seed in range(3)]
    store = store_of(packed(segments))
    found = SegmentReader(store, KEY).read([0, 1, 2])
    assert next(found) == segments[0]
    assert len(store.ranges) == 2


def test_an_index_longer_than_the_front_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdcore.messages.segments, "FRONT_BYTES", 64)
    about = {"name": "x" * 1_000}
    reader = SegmentReader(store_of(packed([b"data"], about)), KEY)
    assert (reader.about, list(reader.read([0]))) == (about, [b"data"])


def test_a_missing_object_is_a_missing_key() -> None:
    with pytest.raises(KeyMissingError):
        SegmentReader(MemoryStore(), KEY)


def read_all(data: bytes) -> list[bytes]:
    reader = SegmentReader(store_of(data), KEY)
    return list(reader.read(range(len(reader))))


SOUND = packed([b"first segment " * 3, b"", noise(80)], {"rank": 1, "names": ["a", "b"]})


@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255))
def test_no_changed_byte_changes_what_is_read(at: int, change: int) -> None:
    damaged = bytearray(SOUND)
    damaged[at] ^= change
    try:
        found = read_all(bytes(damaged))
    except WireError:
        return
    # Zstandard has bits that mean nothing.
    assert found == read_all(SOUND)


@given(st.integers(0, len(SOUND) - 1))
def test_an_object_cut_short_is_refused(length: int) -> None:
    with pytest.raises(WireError):
        read_all(SOUND[:length])


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda rest: SOUND[:4] + rest))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        read_all(data)


def with_index(index: bytes, segments: bytes = b"") -> bytes:
    """An object with `index` as it stands, its checksum right."""
    return b"".join([b"FSDS", struct.pack("<II", len(index), zlib.crc32(index)), index, segments])


STORED, PLAIN = compress_segment(b"data")


def index_of(stored: list[Any], plain: list[Any], about: Any = None) -> bytes:
    return json.dumps({"stored": stored, "plain": plain, "about": about or {}}).encode()


def test_the_objects_made_here_are_like_the_real_ones() -> None:
    assert read_all(with_index(index_of([len(STORED)], [PLAIN]), STORED)) == [b"data"]


@pytest.mark.parametrize(
    "index",
    [
        index_of([len(STORED)], []),
        index_of([len(STORED)], [-1]),
        index_of([-1], [PLAIN]),
        index_of([len(STORED) - 1], [PLAIN]),
        index_of([len(STORED) + 1], [PLAIN]),
        index_of([len(STORED)], [PLAIN - 1]),
        index_of([2**40], [PLAIN]),
        index_of([2**63], [PLAIN]),
        index_of([2**64, 2**64], [PLAIN, PLAIN]),
        index_of([10**40], [10**40]),
        index_of([0.5], [PLAIN]),
        index_of(["4"], [PLAIN]),
        index_of([len(STORED)], [2**63]),
        index_of([len(STORED)], [10**40]),
        json.dumps({"stored": [], "plain": []}).encode(),
        b"[" * 5_000,
        b"\xff\xfe",
        b"",
    ],
)
def test_an_index_that_lies_is_refused(index: bytes) -> None:
    with pytest.raises(WireError):
        read_all(with_index(index, STORED))


def test_an_index_that_says_it_is_huge_is_not_read() -> None:
    store = store_of(b"FSDS" + struct.pack("<II", 0xFFFFFFFF, 0) + b"{}")
    with pytest.raises(WireError, match="index of 4294967295 bytes"):
        SegmentReader(store, KEY)
    assert len(store.ranges) == 1


def test_a_segment_that_expands_beyond_what_it_says_is_refused() -> None:
    bomb, _ = compress_segment(bytes(50_000_000))
    with pytest.raises(WireError, match="expand"):
        read_all(with_index(index_of([len(bomb)], [10]), bomb))


def safetensors_of(header: Any, data: bytes = b"") -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 16,
        safetensors_of({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors_of({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors_of({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors_of({"a": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors_of({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors_of({"a": {"dtype": "object", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    ],
)
def test_what_are_not_arrays_is_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="arrays"):
        unpack_arrays(data)
