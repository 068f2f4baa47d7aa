"""The mailbox: once each, whatever the order and however often."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Slot
from fsdcore.errors import AbortedError, WireError
from fsdcore.messages.frames import ABORT, CLIENT, DATA, Body, build_frames, make_body, open_body
from fsdcore.messages.mailbox import AbortNotice, Left, Mailbox, Piece

RUN, OTHER = "0000000000000001", "0000000000000002"


def mailbox() -> Mailbox:
    return Mailbox(SYSTEM_CLOCK, RUN, 0, workers=4, batches=2, layers=5)


def cut(plain: bytes, source: int = 1, layer: int = 1, run: str = RUN, target: int = 0, batch: int = 0) -> list[bytes]:
    return list(build_frames(run, Slot(DATA, batch, layer), source, target, Body(1 if plain else 0, plain), 50))


@given(st.randoms(use_true_random=False), st.lists(st.binary(max_size=60), min_size=1, max_size=6))
def test_messages_are_whole_and_come_once(rng: random.Random, plains: list[bytes]) -> None:
    box = mailbox()
    slots = [(source, layer) for source in (1, 2, 3) for layer in (1, 2)]
    wanted = dict(zip(slots, plains, strict=False))
    frames = [frame for (source, layer), plain in wanted.items() for frame in cut(plain, source, layer)]
    frames = frames * rng.randint(1, 3) + cut(b"of another run", run=OTHER)
    rng.shuffle(frames)
    for frame in frames:
        box.add([frame])
    for (source, layer), plain in wanted.items():
        assert open_body(box.take(Slot(DATA, 0, layer), source), 1_000) == plain
    box.add(frames)
    assert not any(box.ready(Slot(DATA, 0, layer), source) for source, layer in wanted)


def test_a_message_is_not_ready_until_its_last_piece() -> None:
    box, frames = mailbox(), cut(b"x" * 20)
    box.add(frames[:-1])
    assert not box.ready(Slot(DATA, 0, 1), 1)
    assert box.missing(Slot(DATA, 0, 1), [1, 2]) == [1, 2]
    box.add(frames[-1:])
    assert box.missing(Slot(DATA, 0, 1), [1, 2]) == [2]


def test_doubles_of_a_finished_batch_are_forgotten() -> None:
    box = mailbox()
    box.add(cut(b"data"))
    box.take(Slot(DATA, 0, 1), 1)
    box.finish(0)
    box.add(cut(b"data"))
    assert not box.ready(Slot(DATA, 0, 1), 1)


@pytest.mark.parametrize(
    "frames",
    [cut(b"x", source=4), cut(b"x", layer=6), cut(b"x", batch=2), [b"FS, but short"]],
    ids=["source", "layer", "batch", "short"],
)
def test_frames_that_cannot_belong_to_the_run_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        mailbox().add(frames)


@pytest.mark.parametrize("frames", [cut(b"x", target=1), [b""], [b"F"], [b"{}"], cut(b"x", run="0" * 16)])
def test_what_is_another_s_or_no_frame_is_dropped_and_counted(frames: list[bytes]) -> None:
    box = mailbox()
    assert box.add([*frames, *cut(b"y")]) == Left([], {})
    assert box.dropped == len(frames)
    assert box.take(Slot(DATA, 0, 1), 1) == Body(1, b"y")


def test_frames_of_a_younger_run_are_handed_back_and_not_counted() -> None:
    box = mailbox()
    assert box.add([b"no frame", *cut(b"x", run=OTHER), *cut(b"y")]) == Left([1], {})
    assert box.dropped == 1


def test_pieces_that_contradict_each_other_are_refused() -> None:
    box = mailbox()
    box.add(cut(b"x" * 20)[:1])
    with pytest.raises(WireError, match="contradict"):
        box.add(cut(b"x" * 40)[:1])


@pytest.mark.parametrize("source", [2, CLIENT])
def test_an_abort_stops_every_wait(source: int) -> None:
    box = mailbox()
    notice = AbortNotice(rank=2, layer=3, error="StoreError", message="it broke")
    body = make_body(msgspec.json.encode(notice))
    box.add(build_frames(RUN, Slot(ABORT, 0, 0), source, 0, body, 1_000))
    for wait in (box.check, lambda: box.wait_any([(Slot(DATA, 0, 1), 1)], Deadline.after(5, SYSTEM_CLOCK))):
        with pytest.raises(AbortedError, match="layer 3, peer 2: StoreError: it broke"):
            wait()


def test_an_abort_that_cannot_be_read_is_a_wire_error() -> None:
    frames = build_frames(RUN, Slot(ABORT, 0, 0), 1, 0, make_body(b"not json"), 1_000)
    with pytest.raises(WireError, match="abort"):
        mailbox().add(frames)


def test_a_wait_ends_at_its_deadline() -> None:
    assert not mailbox().wait_any([(Slot(DATA, 0, 1), 1)], Deadline.after(0.01, SYSTEM_CLOCK))


def test_what_comes_early_is_left_where_there_is_no_room() -> None:
    box = Mailbox(SYSTEM_CLOCK, RUN, 0, workers=4, batches=2, layers=5, room=20)
    expected, early = Slot(DATA, 0, 2), Slot(DATA, 0, 3)
    box.expect(expected)
    assert box.add(cut(bytes(20), layer=3)).early == {}
    assert box.add(cut(bytes(1), layer=3, source=2)).early == {0: Piece(early, 2, 0)}
    assert not box.has_room(early, 1)
    # What is waited for comes in all the same, and counts.
    assert box.add(cut(bytes(20), layer=2)).early == {}
    box.take(expected, 1)
    assert not box.has_room(early, 1)
    box.expect(early)
    assert box.add(cut(bytes(1), layer=3, source=2)).early == {}
    box.take(early, 1)
    box.take(early, 2)
    assert box.has_room(Slot(DATA, 1, 2), 20)


def test_doubles_and_aborts_need_no_room() -> None:
    box = Mailbox(SYSTEM_CLOCK, RUN, 0, workers=4, batches=2, layers=5, room=0)
    assert box.add(cut(b"data")).early == {0: Piece(Slot(DATA, 0, 1), 1, 0)}
    box.finish(0)
    assert box.add(cut(b"data")).early == {}
    box.add(list(build_frames(RUN, Slot(ABORT, 0, 0), CLIENT, 0, make_body(msgspec.json.encode(AbortNotice())), 500)))
    with pytest.raises(AbortedError):
        box.check()
