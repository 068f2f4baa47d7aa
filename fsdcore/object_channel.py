"""FSD-Inf-Object: a channel over any store (paper, section III-B), written once for all clouds.

All frames that a rank sends in one slot form one object under a name the receivers can work out, with an index of
the targets at its front. A receiver reads the front of the object, which holds the index and usually its part; a
name that is not there yet is asked for again, with back-off. Nothing is listed, and empty messages cost an entry in
an index.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from fsdcore.capabilities import ChannelCapabilities, StoreCapabilities
from fsdcore.channel import Address, Channel, Outgoing, Received, Slot
from fsdcore.clock import Deadline
from fsdcore.counting import CountingStore
from fsdcore.errors import FrameTooLargeError, KeyMissingError, WireError
from fsdcore.packing import check_publish
from fsdcore.store import Store
from fsdcore.wire import ABORT, HEADER_BYTES, parse_frame

__all__ = ["ObjectChannel", "object_channel_capabilities"]

_MAGIC = b"FSDO"
_HEAD = struct.Struct("<4sI")
_ENTRY = struct.Struct("<IQI")
_FRONT = 256 * 1024
_LARGEST_FRAME = 1 << 30
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.05
_ABORT_CHECK_SECONDS = 0.25


def object_channel_capabilities(store: StoreCapabilities) -> ChannelCapabilities:
    """The limits of an object channel over a store with these capabilities."""
    largest = store.max_object_bytes or (1 << 40)
    return ChannelCapabilities(
        max_frame_bytes=min(_LARGEST_FRAME, largest // 2),
        max_publish_frames=1 << 20,
        max_publish_bytes=largest - (64 << 20) if largest > (1 << 30) else largest,
        frame_overhead_bytes=_ENTRY.size,
        max_receive_frames=1 << 20,
        lanes=None,
        redelivers=False,
    )


def _pack(frames: Sequence[Outgoing]) -> bytes:
    parts: dict[int, list[bytes]] = {}
    for frame in frames:
        parts.setdefault(frame.target, []).append(frame.data)
    index, offset = [_HEAD.pack(_MAGIC, len(parts))], _HEAD.size + _ENTRY.size * len(parts)
    for target in sorted(parts):
        length = sum(map(len, parts[target]))
        index.append(_ENTRY.pack(target, offset, length))
        offset += length
    return b"".join([*index, *(data for target in sorted(parts) for data in parts[target])])


def _find(index: bytes, count: int, target: int) -> tuple[int, int]:
    """Where the part of `target` begins, and its length; (0, 0) if there is none."""
    for entry in range(count):
        found, offset, length = _ENTRY.unpack_from(index, _HEAD.size + entry * _ENTRY.size)
        if found == target:
            return offset, length
    return 0, 0


def _split(part: bytes) -> list[bytes]:
    """The frames of a part, each as long as its header says."""
    frames, view = [], memoryview(part)
    while view:
        if len(view) < HEADER_BYTES:
            raise WireError("an object whose frames are cut short")
        (length,) = struct.unpack_from("<I", view, HEADER_BYTES - 8)
        frames.append(bytes(view[: HEADER_BYTES + length]))
        view = view[HEADER_BYTES + length :]
    return frames


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
        self._waiting: dict[tuple[Slot, int], None] = {}
        self._next_abort_check = 0.0

    @property
    def capabilities(self) -> ChannelCapabilities:
        return self._limits

    def observe(self, count: Callable[[str], None]) -> None:
        self._store = CountingStore(self._store, count)

    def _key(self, slot: Slot, source: int) -> str:
        prefix = f"runs/{self._address.run}"
        if slot.kind == ABORT:
            return f"{prefix}/abort"
        return f"{prefix}/x/{slot.kind}-{slot.batch}-{slot.layer}/{source}"

    def send(self, frames: Sequence[Outgoing]) -> None:
        if not frames:
            return
        check_publish(frames, self._limits)
        heads = {(frame.slot, frame.source) for frame in map(parse_frame, (f.data for f in frames))}
        if len(heads) > 1:
            raise FrameTooLargeError("one publish of an object channel holds the frames of one slot")
        slot, source = heads.pop()
        self._store.put(self._key(slot, source), _pack(frames))

    def expect(self, slot: Slot, sources: Sequence[int]) -> None:
        for source in sources:
            self._waiting.setdefault((slot, source))

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
        self._next_abort_check = now + _ABORT_CHECK_SECONDS
        return self._fetch(self._key(Slot(ABORT, 0, 0), 0)) or []

    def _fetch_in_order(self) -> list[Received]:
        """What is there of the slots waited for: of each batch, up to the first that is not.

        A batch needs them in the order in which they were named, and each look for one that is missing is a request.
        """
        received: list[Received] = []
        missing: set[tuple[int, int]] = set()
        for slot, source in list(self._waiting):
            if slot[:2] in missing:
                continue
            found = self._fetch(self._key(slot, source))
            if found is None:
                missing.add(slot[:2])
                continue
            del self._waiting[slot, source]
            received += found
        return received

    def _fetch(self, key: str) -> list[Received] | None:
        """This rank's frames of the object; None if there is no object yet."""
        try:
            front = self._store.get_range(key, 0, _FRONT)
        except KeyMissingError:
            return None
        if len(front) < _HEAD.size or front[:4] != _MAGIC:
            raise WireError(f"object {key} does not hold frames")
        (_, count) = _HEAD.unpack_from(front)
        size = _HEAD.size + count * _ENTRY.size
        index = front if size <= len(front) else self._store.get_range(key, 0, size)
        if len(index) < size:
            raise WireError(f"object {key} is cut short")
        offset, length = _find(index, count, self._address.rank)
        part = front[offset : offset + length]
        if len(part) < length:
            part = self._store.get_range(key, offset, length)
        return [Received(data, key) for data in _split(part)]

    def acknowledge(self, received: Sequence[Received]) -> None:
        """Nothing to do: objects stay until the run is cleaned up."""

    def close(self) -> None:
        self._waiting.clear()
