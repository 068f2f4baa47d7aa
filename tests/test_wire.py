"""Frames and row messages: round trips, and hostile bytes."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.channel import Slot
from fsdcore.codec import Rows, decode_rows, encode_rows
from fsdcore.compression import compress
from fsdcore.errors import FrameTooLargeError, WireError
from fsdcore.wire import (
    CLIENT,
    DATA,
    HEADER_BYTES,
    ZSTD,
    Body,
    build_frames,
    make_body,
    new_run_id,
    open_body,
    parse_frame,
)

RUN = "00ff00ff00ff00ff"


def one_frame(body: Body) -> bytes:
    (frame,) = build_frames(RUN, Slot(DATA, 1, 2), 3, 4, body, 1 << 30)
    return frame


@given(st.binary(max_size=2_000), st.integers(HEADER_BYTES + 1, 500))
def test_a_message_survives_being_cut(plain: bytes, size: int) -> None:
    body = make_body(plain)
    frames = [parse_frame(data) for data in build_frames(RUN, Slot(DATA, 1, 2), 3, CLIENT, body, size)]
    assert all(len(frame.data) + HEADER_BYTES <= size for frame in frames)
    assert [frame.piece for frame in frames] == list(range(frames[0].pieces))
    joined = Body(frames[0].encoding, b"".join(frame.data for frame in frames))
    assert open_body(joined, len(plain)) == plain
    assert {(frame.run, frame.slot, frame.source, frame.target) for frame in frames} == {
        (RUN, Slot(DATA, 1, 2), 3, CLIENT)
    }


def test_an_empty_message_is_a_header_alone() -> None:
    assert len(one_frame(make_body(b""))) == HEADER_BYTES == 42


def test_a_message_of_too_many_pieces_is_refused() -> None:
    with pytest.raises(FrameTooLargeError, match="smaller batches"):
        list(build_frames(RUN, Slot(DATA, 0, 0), 0, 1, Body(1, bytes(70_000)), HEADER_BYTES + 1))


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[Rows, int]:
    samples, count = draw(st.integers(0, 40)), draw(st.integers(0, 6))
    columns = np.array(sorted(draw(st.sets(st.integers(0, max(0, samples - 1)), max_size=samples))), np.int32)
    columns = columns[columns < samples]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    values = rng.normal(size=(count, columns.size)).astype(np.float32)
    values[rng.random(values.shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = 0
    return Rows(columns, values), samples


def spread(rows: Rows, samples: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    full = np.zeros((rows.values.shape[0], samples), np.float32)
    full[:, rows.columns] = rows.values
    return full


@given(some_rows())
def test_rows_come_back_to_the_bit(case: tuple[Rows, int]) -> None:
    rows, samples = case
    encoded = encode_rows(rows, samples)
    decoded = decode_rows(encoded.body, rows.values.shape[0], samples)
    np.testing.assert_array_equal(spread(decoded, samples), spread(rows, samples))
    assert encoded.nonzeros == np.count_nonzero(rows.values)
    assert encoded.rows == np.count_nonzero(rows.values.any(axis=1))
    assert bool(encoded.body.data) == bool(encoded.nonzeros)


def sample_message() -> tuple[Body, int, int]:
    rng = np.random.default_rng(1)
    values = (rng.random((9, 70)) * (rng.random((9, 70)) < 0.4)).astype(np.float32)
    return encode_rows(Rows(np.arange(5, 75, dtype=np.int32), values), 100).body, 9, 100


def test_ten_thousand_mutated_frames_are_refused_or_harmless() -> None:
    body, rows, samples = sample_message()
    good, rng = one_frame(body), random.Random(0)
    refused = 0
    for _ in range(10_000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data
        try:
            frame = parse_frame(bytes(data))
        except WireError as error:
            refused += "\n" not in str(error)
        else:
            assert bytes(data) == good
            decode_rows(Body(frame.encoding, bytes(frame.data)), rows, samples)
    assert refused > 9_900


def test_ten_thousand_mutated_messages_with_a_right_checksum_stay_within_bounds() -> None:
    # An attacker can make a checksum: then the decoder alone must hold.
    body, rows, samples = sample_message()
    plain, rng = open_body(body, 1 << 20), random.Random(0)
    for _ in range(10_000):
        data = bytearray(plain)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(40 if rng.random() < 0.5 else len(data))] = rng.randrange(256)
        try:
            decoded = decode_rows(make_body(bytes(data)), rows, samples)
        except WireError:
            continue
        assert decoded.values.shape == (rows, decoded.columns.size)
        assert decoded.columns.size <= samples


def test_a_bomb_is_refused_in_bounded_memory() -> None:
    bomb = Body(ZSTD, compress(bytes(1 << 28), 19))
    tracemalloc.start()
    with pytest.raises(WireError, match="expand"):
        decode_rows(bomb, 10, 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(0, b"XX", "magic"), (2, b"\x02", "version 2"), (34, b"\xff\xff\xff\xff", "says"), (38, b"\0\0\0\0", "checksum")],
)
def test_each_header_field_is_checked(offset: int, value: bytes, message: str) -> None:
    data = bytearray(one_frame(make_body(b"payload")))
    data[offset : offset + len(value)] = value
    with pytest.raises(WireError, match=message):
        parse_frame(bytes(data))


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_refused_with_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_frame(data)


def test_run_ids_are_fresh() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100


def test_a_run_id_is_above_the_one_it_follows_whatever_the_clock_says() -> None:
    ahead = new_run_id(after=f"{2**63:016x}")
    assert ahead > f"{2**63:016x}"
    assert new_run_id() < ahead < new_run_id(after=ahead)
    assert {len(ahead), len(new_run_id())} == {16}
