"""The object channel: few requests, names that can be worked out, and objects that are not taken on trust."""

from __future__ import annotations

import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_local import LocalBackend
from fsd_local.stores import MemoryStore
from fsdcore.client.session import Session
from fsdcore.clock import Deadline
from fsdcore.contracts.channel import Address, Outgoing, Slot
from fsdcore.contracts.limits import StoreCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import FrameTooLargeError, StoreError, WireError
from fsdcore.messages.frames import ABORT, DATA, Body, build_frames
from fsdcore.messages.object_channel import ObjectChannel, object_channel_capabilities
from fsdcore.messages.packing import pack_in_order
from fsdcore.network.activations import clipped_relu
from fsdcore.testing import random_inputs, random_network
from fsdcore.testing.clock import VirtualClock

RUN, WORKERS = "00000000000000aa", 4
SLOT = Slot(DATA, 0, 1)


def channel(store: MemoryStore, rank: int) -> ObjectChannel:
    return ObjectChannel(store, Address(RUN, rank, WORKERS))


def frames(target: int, plain: bytes, slot: Slot = SLOT, source: int = 0, size: int = 1 << 20) -> list[Outgoing]:
    body = Body(1 if plain else 0, plain)
    return [Outgoing(target, data) for data in build_frames(RUN, slot, source, target, body, size)]


def at_once() -> Deadline:
    return Deadline.after(0.0, VirtualClock())


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


def test_what_makes_a_receive_long_stays_in_the_store_until_the_next() -> None:
    store = MemoryStore()
    sent = [frames(0, bytes([source]) * 900_000, source=source)[0].data for source in (1, 2, 3)]
    for source, data in zip((1, 2, 3), sent, strict=True):
        channel(store, source).send([Outgoing(0, data)])
    receiver = channel(store, 0)
    receiver.expect(SLOT, [1, 2, 3])
    assert [item.data for item in receiver.receive(at_once())] == sent[:2]
    assert [item.data for item in receiver.receive(at_once())] == sent[2:]


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


def indexed(target: int, offset: int, length: int) -> bytes:
    """The head and the index of an object with one part."""
    entry = struct.pack("<IQQ", target, offset, length)
    return struct.pack("<4sII", b"FSDO", 1, zlib.crc32(entry)) + entry


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"FSDO",
        b"XXXX" + bytes(40),
        struct.pack("<4sII", b"FSDO", 9, 0) + bytes(16),
        struct.pack("<4sII", b"FSDO", 1 << 31, 0) + bytes(16),
        struct.pack("<4sIIIQQ", b"FSDO", 1, 0, 1, 32, 0),
        indexed(1, 32, 10) + bytes(10),
        indexed(1, 32, 60) + bytes(50),
        indexed(1, 1 << 50, 60) + bytes(50),
        indexed(1, 32, (1 << 64) - 1) + bytes(50),
    ],
)
def test_an_object_that_holds_no_frames_is_refused(data: bytes) -> None:
    store = MemoryStore()
    store.put(f"runs/{RUN}/x/{DATA}-0-1/0-0", data)
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


class SmallObjects(MemoryStore):
    """Holds rows in objects of up to `largest` bytes, and does not let one replace another."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        self._largest = largest

    @property
    def capabilities(self) -> StoreCapabilities:
        return StoreCapabilities(max_object_bytes=self._largest)

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        assert "/x/" not in key or (len(data) <= self._largest and not self.exists(key))
        super().put(key, data, if_absent)


@given(
    sizes=st.lists(st.integers(0, 2_000), min_size=WORKERS - 1, max_size=WORKERS - 1),
    largest=st.sampled_from([128, 300, 1_000, 5_000]),
    order=st.permutations([1, 2, 3]),
)
def test_what_a_slot_sends_arrives_whatever_the_objects_hold(sizes: list[int], largest: int, order: list[int]) -> None:
    store = SmallObjects(largest)
    limits = object_channel_capabilities(store.capabilities)
    sender, receivers = channel(store, 0), [channel(store, rank) for rank in range(1, WORKERS)]
    cut = {rank: frames(rank, bytes(sizes[rank - 1]), size=limits.max_frame_bytes) for rank in order}
    for receiver in receivers:
        receiver.expect(SLOT, [0])
    found: dict[int, list[bytes]] = {rank: [] for rank in order}
    for publish in pack_in_order((frame for rank in order for frame in cut[rank]), limits):
        sender.send(publish)
        for rank, receiver in enumerate(receivers, start=1):
            found[rank] += [item.data for item in receiver.receive(at_once())]
    assert {rank: sorted(data) for rank, data in found.items()} == {
        rank: sorted(frame.data for frame in sent) for rank, sent in cut.items()
    }
    # All is there, so nobody looks again.
    for receiver in receivers:
        gets = Counter[str]()
        receiver.observe(lambda name, gets=gets: gets.update([name]))  # type: ignore[misc]
        receiver.receive(at_once())
        assert gets["gets"] <= 1


class FailsOnce(MemoryStore):
    """The first put is refused."""

    failed = False

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        if not self.failed:
            self.failed = True
            raise StoreError("made to fail")
        super().put(key, data, if_absent)


def test_a_send_that_failed_may_be_made_again() -> None:
    store = FailsOnce()
    sender, receiver = channel(store, 0), channel(store, 1)
    first, second = frames(1, bytes(30), size=60)
    with pytest.raises(StoreError):
        sender.send([first])
    for frame in (second, first):
        sender.send([frame])
    receiver.expect(SLOT, [0])
    assert {item.data for item in receiver.receive(at_once())} == {first.data, second.data}


@pytest.mark.parametrize("largest", [None, 1_000, 1 << 29, 5 << 30, 5 << 40])
def test_frames_fit_objects_of_the_store(largest: int | None) -> None:
    limits = object_channel_capabilities(StoreCapabilities(max_object_bytes=largest))
    assert limits.publish_size(limits.max_frame_bytes) <= limits.max_publish_bytes < (largest or 1 << 40)
    assert limits.lanes is None


def test_runs_are_right_over_a_store_of_small_objects() -> None:
    network, x = random_network((48, 48, 48), (clipped_relu(32.0),)), random_inputs(64, 48)
    backend = LocalBackend()
    backend._store = SmallObjects(1_000)
    settings = RunSettings(workers=4, method="random", channel="object", deadline_seconds=20.0)
    with Session(backend, settings) as session:
        result = session.load(network).run(x)
    # One for the rows of the second layer, one for the record.
    assert result.record.counters["publishes"] > 4 + 3
    np.testing.assert_allclose(result.outputs.toarray(), network.infer(x).toarray(), rtol=1e-4, atol=1e-4)
