"""Frames: round trips, and hostile bytes."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.channel import Slot
from fsdcore.contracts.compute import new_run_id
from fsdcore.errors import FrameTooLargeError, WireError
from fsdcore.messages.frames import CLIENT, DATA, HEADER_BYTES, Body, build_frames, make_body, open_body, parse_frame

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


def test_what_is_beyond_32_bits_is_refused() -> None:
    # Memory that is never touched, and so not taken.
    large = np.empty((1 << 32) + 10, np.uint8).data
    with pytest.raises(FrameTooLargeError, match=r"a frame of 4294967306 bytes.* use smaller batches"):
        next(build_frames(RUN, Slot(DATA, 0, 0), 0, 0, Body(3, large), 1 << 40))  # type: ignore[arg-type]
    with pytest.raises(FrameTooLargeError, match="batch 4294967296"):
        next(build_frames(RUN, Slot(DATA, 1 << 32, 0), 0, 0, Body(0, b""), 1 << 20))


def test_ten_thousand_mutated_frames_are_refused_or_harmless() -> None:
    good, rng = one_frame(make_body(bytes(range(256)) * 3)), random.Random(0)
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
            assert frame.run == RUN
    assert refused > 9_900


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
    assert len({new_run_id(SYSTEM_CLOCK) for _ in range(100)}) == 100


def test_a_run_id_is_above_the_one_it_follows_whatever_the_clock_says() -> None:
    ahead = new_run_id(after=f"{2**63:016x}", clock=SYSTEM_CLOCK)
    assert ahead > f"{2**63:016x}"
    assert new_run_id(SYSTEM_CLOCK) < ahead < new_run_id(after=ahead, clock=SYSTEM_CLOCK)
    assert {len(ahead), len(new_run_id(SYSTEM_CLOCK))} == {16}
