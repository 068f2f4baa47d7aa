"""FSD-Inf-Object: a channel over any store (paper, section III-B), written once for all clouds.

All frames that a rank sends in one slot form one object under a name the receivers can work out, with an index of
the targets at its front; where they are more than the store's objects hold, several, numbered from 0. A receiver reads
the front of the object, which holds the index and usually its part, and goes on to the next object until its message is
whole, as its frames say. A name that is not there yet is asked for again, with back-off. Nothing is listed, and empty
messages cost an entry in an index.

An object is 4 bytes magic ``FSDO``, 4 bytes number of targets and 4 bytes CRC-32 of the index; the index, with 4 bytes
target, 8 bytes where its frames begin and 8 bytes how many bytes they are, for each target; and the frames, one after
another. All numbers are little endian.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Sequence

from fsdcore.clock import Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received, Slot
from fsdcore.contracts.limits import ChannelCapabilities, StoreCapabilities
from fsdcore.contracts.store import CountingStore, Store
from fsdcore.errors import FrameTooLargeError, KeyMissingError, WireError
from fsdcore.messages.frames import ABORT, Outline, outline, parse_frame
from fsdcore.messages.packing import check_publish
from fsdcore.messages.segments import FRONT_BYTES

_MAGIC = b"FSDO"
_HEAD = struct.Struct("<4sII")
_ENTRY = struct.Struct("<IQQ")
# An object's head, its entry for each target, and what is read of it at first.
HEAD_BYTES, ENTRY_BYTES = _HEAD.size, _ENTRY.size
_LARGEST_FRAME, _LARGEST_OBJECT, _MOST_FRAMES = 1 << 30, 1 << 40, 1 << 20
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.05
ABORT_CHECK_SECONDS = 0.25
# A receive that has brought so many bytes ends, whatever else is there.
_LONG_RECEIVE = 1 << 20


def object_channel_capabilities(store: StoreCapabilities) -> ChannelCapabilities:
    """The limits of an object channel over a store with these capabilities."""
    room = min(store.max_object_bytes or _LARGEST_OBJECT, _LARGEST_OBJECT) - HEAD_BYTES
    return ChannelCapabilities(
        max_frame_bytes=min(_LARGEST_FRAME, room - ENTRY_BYTES),
        max_publish_frames=_MOST_FRAMES,
        max_publish_bytes=room,
        frame_overhead_bytes=ENTRY_BYTES,
        max_receive_frames=_MOST_FRAMES,
        lanes=None,
        redelivers=False,
    )


def _pack(frames: Sequence[Outgoing]) -> bytes:
    parts: dict[int, list[bytes]] = {}
    for frame in frames:
        parts.setdefault(frame.target, []).append(frame.data)
    entries, offset = [], HEAD_BYTES + ENTRY_BYTES * len(parts)
    for target in sorted(parts):
        length = sum(map(len, parts[target]))
        entries.append(_ENTRY.pack(target, offset, length))
        offset += length
    index = b"".join(entries)
    head = _HEAD.pack(_MAGIC, len(parts), zlib.crc32(index))
    return b"".join([head, index, *(data for target in sorted(parts) for data in parts[target])])


def _find(index: bytes, target: int) -> tuple[int, int]:
    """Where the part of `target` begins, and its length; (0, 0) if there is none."""
    for found, offset, length in _ENTRY.iter_unpack(index):
        if found == target:
            return offset, length
    return 0, 0


class _Awaited:
    """A message of one source that is waited for: the object to look at next, and which of its pieces are known."""

    def __init__(self) -> None:
        self.objects = 0
        self._pieces: set[int] = set()
        self._of = 1

    @property
    def whole(self) -> bool:
        return len(self._pieces) >= self._of

    def split(self, part: bytes) -> list[bytes]:
        """The frames of a part of the next object, each as long as its header says."""
        frames, view = [], memoryview(part)
        while view:
            said = outline(view)
            self._note(said)
            frames.append(bytes(view[: said.size]))
            view = view[said.size :]
        self.objects += 1
        return frames

    def _note(self, said: Outline) -> None:
        self._of = said.pieces
        self._pieces.add(said.piece)


class ObjectChannel(Channel):
    """The endpoint of one rank. `expect` must have named a slot before its frames can be received.

    `store` is shared and stays open when the channel closes. Between two looks for an object that is not there yet
    the channel waits as long as a request takes, and longer each time, up to `longest_pause`.
    """

    def __init__(self, store: Store, address: Address, longest_pause: float = _LONGEST_PAUSE) -> None:
        self._store, self._address = store, address
        self._shortest_pause = max(_SHORTEST_PAUSE, store.capabilities.latency_seconds)
        self._longest_pause = max(longest_pause, self._shortest_pause)
        self._limits = object_channel_capabilities(store.capabilities)
        self._sent: dict[Slot, int] = {}
        self._sending = threading.Lock()
        self._waiting: dict[tuple[Slot, int], _Awaited] = {}
        self._next_abort_check = 0.0

    @property
    def capabilities(self) -> ChannelCapabilities:
        return self._limits

    def observe(self, count: Callable[[str], None]) -> None:
        self._store = CountingStore(self._store, count)

    def _key(self, slot: Slot, source: int, number: int = 0) -> str:
        prefix = f"runs/{self._address.run}"
        if slot.kind == ABORT:
            return f"{prefix}/abort"
        return f"{prefix}/x/{slot.kind}-{slot.batch}-{slot.layer}/{source}-{number}"

    def send(self, frames: Sequence[Outgoing]) -> None:
        if not frames:
            return
        check_publish(frames, self._limits)
        heads = {(frame.slot, frame.source) for frame in map(parse_frame, (f.data for f in frames))}
        if len(heads) > 1:
            raise FrameTooLargeError("one publish of an object channel holds the frames of one slot")
        slot, source = heads.pop()
        # One after another, so that a put that fails leaves no gap among the numbers.
        with self._sending:
            number = self._sent.get(slot, 0)
            self._store.put(self._key(slot, source, number), _pack(frames))
            self._sent[slot] = number + 1

    def expect(self, slot: Slot, sources: Sequence[int]) -> None:
        for source in sources:
            self._waiting.setdefault((slot, source), _Awaited())

    def receive(self, deadline: Deadline) -> list[Received]:
        pause = self._shortest_pause
        while True:
            received = self._check_abort(deadline.clock.now())
            received += self._fetch_in_order()
            if received or deadline.passed():
                return received
            deadline.clock.sleep(min(pause, deadline.remaining()))
            pause = min(pause * 1.5, self._longest_pause)

    def _check_abort(self, now: float) -> list[Received]:
        """Look for an abort, but seldom: each look is a request."""
        if now < self._next_abort_check:
            return []
        self._next_abort_check = now + ABORT_CHECK_SECONDS
        return self._fetch(self._key(Slot(ABORT, 0, 0), 0), _Awaited()) or []

    def _fetch_in_order(self) -> list[Received]:
        """What is there of the slots waited for: of each batch, up to the first that is not.

        A batch needs them in the order in which they were named, and each look for one that is missing is a request.
        What makes a receive long is left in the store until it is needed.
        """
        received: list[Received] = []
        size = 0
        missing: set[tuple[int, int]] = set()
        for (slot, source), awaited in list(self._waiting.items()):
            if size > _LONG_RECEIVE:
                break
            if slot[:2] in missing:
                continue
            while not awaited.whole:
                found = self._fetch(self._key(slot, source, awaited.objects), awaited)
                if found is None:
                    missing.add(slot[:2])
                    break
                received += found
                size += sum(len(item.data) for item in found)
            else:
                del self._waiting[slot, source]
        return received

    def _fetch(self, key: str, awaited: _Awaited) -> list[Received] | None:
        """This rank's frames of the object; None if there is no object yet."""
        try:
            front = self._store.get_range(key, 0, FRONT_BYTES)
        except KeyMissingError:
            return None
        offset, length = _find(self._index(key, front), self._address.rank)
        if offset + length > self._limits.max_publish_bytes + HEAD_BYTES:
            raise WireError(f"object {key} is damaged: a part that ends at byte {offset + length}")
        return [Received(data, key) for data in awaited.split(self._range(key, front, offset, length))]

    def _index(self, key: str, front: bytes) -> bytes:
        if len(front) < HEAD_BYTES or front[:4] != _MAGIC:
            raise WireError(f"object {key} does not hold frames")
        _, count, checksum = _HEAD.unpack_from(front)
        if count > _MOST_FRAMES:
            raise WireError(f"object {key} is damaged: an index of {count} targets")
        index = self._range(key, front, HEAD_BYTES, count * ENTRY_BYTES)
        if zlib.crc32(index) != checksum:
            raise WireError(f"object {key} is damaged: its index has a wrong checksum")
        return index

    def _range(self, key: str, front: bytes, start: int, length: int) -> bytes:
        part = front[start : start + length]
        if len(part) < length:
            part = self._store.get_range(key, start, length)
        if len(part) < length:
            raise WireError(f"object {key} is cut short")
        return part

    def acknowledge(self, received: Sequence[Received]) -> None:
        """Nothing to do: objects stay until the run is cleaned up."""

    def close(self) -> None:
        self._waiting.clear()
