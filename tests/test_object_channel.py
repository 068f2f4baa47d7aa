"""The object channel: few requests, names that can be worked out, and objects that are not taken on trust."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from backends.local.memory_store import MemoryStore
from fsdcore.capabilities import StoreCapabilities
from fsdcore.channel import Address, Outgoing, Slot
from fsdcore.clock import Deadline
from fsdcore.errors import FrameTooLargeError, WireError
from fsdcore.object_channel import ObjectChannel, object_channel_capabilities
from fsdcore.testing.clock import ManualClock
from fsdcore.wire import ABORT, DATA, Body, build_frames

RUN, WORKERS = "00000000000000aa", 4
SLOT = Slot(DATA, 0, 1)


def channel(store: MemoryStore, rank: int) -> ObjectChannel:
    return ObjectChannel(store, Address(RUN, rank, WORKERS))


def frames(target: int, plain: bytes, slot: Slot = SLOT, source: int = 0, size: int = 1 << 20) -> list[Outgoing]:
    body = Body(1 if plain else 0, plain)
    return [Outgoing(target, data) for data in build_frames(RUN, slot, source, target, body, size)]


def at_once() -> Deadline:
    return Deadline.after(0.0, ManualClock())


def test_what_a_rank_sends_in_a_slot_is_one_object_read_once_by_each_target() -> None:
    store, count = MemoryStore(), Counter[str]()
    sender = channel(store, 0)
    sender.observe(lambda name: count.update([name]))
    sent = {target: frames(target, bytes([target]) * 100, size=60) for target in (1, 2, 3)}
    sender.send([frame for target in (3, 1, 2) for frame in sent[target]])
    assert count == {"puts": 1}
    for target in (1, 2, 3):
        receiver = channel(store, target)
        receiver.expect(SLOT, [0])
        gets = Counter[str]()
        receiver.observe(lambda name, gets=gets: gets.update([name]))  # type: ignore[misc]
        assert [item.data for item in receiver.receive(at_once())] == [frame.data for frame in sent[target]]
        # One look for an abort, one for the object: its front holds the index and this part.
        assert gets == {"gets": 2}
        assert receiver.receive(at_once()) == []


def test_a_part_beyond_the_front_of_the_object_is_read_by_its_range() -> None:
    store = MemoryStore()
    far = frames(2, bytes(1_000))
    channel(store, 0).send([*frames(1, bytes(400_000)), *far])
    receiver = channel(store, 2)
    receiver.expect(SLOT, [0])
    assert [item.data for item in receiver.receive(at_once())] == [far[0].data]


def test_slots_are_looked_for_in_the_order_in_which_they_are_needed() -> None:
    store, gets = MemoryStore(), Counter[str]()
    later = Slot(DATA, 0, 2)
    channel(store, 0).send(frames(3, b"later", later))
    receiver = channel(store, 3)
    receiver.expect(SLOT, [0, 1])
    receiver.expect(later, [0])
    receiver.observe(lambda name: gets.update([name]))
    assert receiver.receive(at_once()) == []
    assert gets == {"gets": 2}
    for source in (0, 1):
        channel(store, source).send(frames(3, b"now", source=source))
    assert len(receiver.receive(at_once())) == 3


def test_an_abort_is_found_without_being_expected() -> None:
    store = MemoryStore()
    channel(store, 0).send(frames(1, b"stop", Slot(ABORT, 0, 0)))
    (received,) = channel(store, 1).receive(at_once())
    assert received.data.endswith(b"stop")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"FSDO",
        b"XXXX" + bytes(40),
        struct.pack("<4sI", b"FSDO", 9) + bytes(16),
        struct.pack("<4sIIQI", b"FSDO", 1, 1, 24, 10) + bytes(10),
    ],
)
def test_an_object_that_holds_no_frames_is_refused(data: bytes) -> None:
    store = MemoryStore()
    store.put(f"runs/{RUN}/x/{DATA}-0-1/0", data)
    receiver = channel(store, 1)
    receiver.expect(SLOT, [0])
    with pytest.raises(WireError):
        receiver.receive(at_once())


def test_a_publish_of_two_slots_is_refused_and_one_of_nothing_sends_nothing() -> None:
    store = MemoryStore()
    with pytest.raises(FrameTooLargeError, match="frames of one slot"):
        channel(store, 0).send([*frames(1, b"a"), *frames(1, b"b", Slot(DATA, 0, 2))])
    channel(store, 0).send([])
    assert store.list("") == []


def test_frames_fit_objects_of_the_store() -> None:
    limits = object_channel_capabilities(StoreCapabilities(max_object_bytes=1_000))
    assert limits.max_frame_bytes < limits.max_publish_bytes <= 1_000
    assert limits.lanes is None
