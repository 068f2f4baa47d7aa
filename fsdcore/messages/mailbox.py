"""Frames in, whole messages out, each once, whatever the order and however often they come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec

from fsdcore.clock import Clock, Deadline
from fsdcore.contracts.channel import Slot
from fsdcore.decoding import from_json
from fsdcore.errors import AbortedError, WireError
from fsdcore.messages.frames import ABORT, CLIENT, COLLECTIVE, DATA, Body, Frame, is_marked, open_body, parse_frame
from fsdcore.text import printable

_LARGEST_NOTICE = 64 * 1024
_MOST_COLLECTIVES = 1 << 16


class AbortNotice(msgspec.Struct, frozen=True, kw_only=True):
    """What an abort frame says: who failed, where, and how."""

    rank: int | None = None
    layer: int | None = None
    batch: int | None = None
    error: str = ""
    message: str = ""


class Piece(NamedTuple):
    """Which piece of which message a frame is."""

    slot: Slot
    source: int
    piece: int


class Left(NamedTuple):
    """What a mailbox has not taken in, by its position: frames of a younger run, and those that came too early."""

    younger: list[int]
    early: dict[int, Piece]


class _Partial:
    """A message of which some pieces are there."""

    __slots__ = ("encoding", "parts", "pieces")

    def __init__(self, frame: Frame) -> None:
        self.pieces, self.encoding = frame.pieces, frame.encoding
        self.parts: dict[int, bytes] = {}

    def add(self, frame: Frame) -> int:
        """How many bytes are new."""
        if (frame.pieces, frame.encoding) != (self.pieces, self.encoding):
            raise WireError("pieces of one message that contradict each other", peer=frame.source)
        if frame.piece in self.parts:
            return 0
        self.parts[frame.piece] = bytes(frame.data)
        return len(frame.data)

    def whole(self) -> bool:
        return len(self.parts) == self.pieces

    def join(self) -> Body:
        return Body(self.encoding, b"".join(self.parts[piece] for piece in range(self.pieces)))


class Mailbox:
    """Holds messages for one rank of one run, which waits by `clock`. All methods may be called from several threads.

    What is no frame, doubles, frames of older runs, and those of this run that are for another rank are dropped, and
    counted in `dropped`. A damaged frame, or one whose source, batch or layer the run does not have, is refused with
    `WireError`, so what is held is bounded by the run's own messages.

    With `room`, data that comes before it is expected is taken in only as far as so many bytes are held; the rest is
    left to the channel, which must give it again. So a peer that runs ahead fills its queue, not this memory.
    """

    def __init__(
        self, clock: Clock, run: str, rank: int, workers: int, batches: int, layers: int, room: int | None = None
    ) -> None:
        self._run, self._rank = run, rank
        self._workers, self._batches, self._layers = workers, batches, layers
        self._room, self._held = room, 0
        self._expected: dict[int, int] = {}
        self._changed = clock.condition()
        self._partial: dict[tuple[Slot, int], _Partial] = {}
        self._whole: dict[tuple[Slot, int], Body] = {}
        self._taken: defaultdict[tuple[int, int], set[tuple[Slot, int]]] = defaultdict(set)
        self._finished: set[tuple[int, int]] = set()
        self._stopped: BaseException | None = None
        self._sources: set[int] = set()
        self.dropped = 0

    def expect(self, slot: Slot) -> None:
        """Say that messages of `slot` will be waited for: whatever else is held, they are taken in."""
        with self._changed:
            if slot.kind == DATA:
                self._expected[slot.batch] = slot.layer

    def heard_from(self, source: int) -> bool:
        """Whether anything of this run has come from that rank."""
        return source in self._sources

    def has_room(self, slot: Slot, size: int) -> bool:
        """Whether `size` bytes of a message of `slot` would be taken in."""
        if self._room is None or slot.kind != DATA or (DATA, slot.batch) in self._finished:
            return True
        return slot.layer <= self._expected.get(slot.batch, 0) or self._held + size <= self._room

    def add(self, frames: Iterable[bytes | memoryview]) -> Left:
        """Take in frames as they came from the channel; `WireError` for one that is not sound.

        Returns those that are not this run's to throw away, as they are of a younger one, and those that there was
        no room for.
        """
        parsed = [parse_frame(data) if is_marked(data) else None for data in frames]
        left = Left([], {})
        with self._changed:
            for position, frame in enumerate(parsed):
                if frame is not None and frame.run > self._run:
                    left.younger.append(position)
                elif frame is None or frame.run != self._run or frame.target != self._rank:
                    self.dropped += 1
                elif not self._add(frame):
                    left.early[position] = Piece(frame.slot, frame.source, frame.piece)
            self._changed.notify_all()
        return left

    def _add(self, frame: Frame) -> bool:
        """Take in a frame of this run; False if there is no room for it."""
        self._check(frame)
        self._sources.add(frame.source)
        if frame.slot.kind == ABORT:
            self._stopped = self._stopped or self._aborted(frame)
            return True
        key, group = (frame.slot, frame.source), frame.slot[:2]
        if group in self._finished or key in self._taken[group] or key in self._whole:
            self.dropped += 1
            return True
        if not self.has_room(frame.slot, len(frame.data)):
            return False
        partial = self._partial.setdefault(key, _Partial(frame))
        self._held += partial.add(frame)
        if partial.whole():
            self._whole[key] = self._partial.pop(key).join()
        return True

    def _check(self, frame: Frame) -> None:
        known_source = frame.source < self._workers or (frame.source == CLIENT and frame.slot.kind == ABORT)
        if not known_source:
            raise WireError(f"a frame from rank {frame.source}; the run has {self._workers} workers")
        if not self._in_range(frame.slot):
            raise WireError(
                f"a frame of batch {frame.slot.batch}, layer {frame.slot.layer}; the run has {self._batches} "
                f"batches of {self._layers} layers",
                peer=frame.source,
            )

    def _in_range(self, slot: Slot) -> bool:
        if slot.kind == DATA:
            return slot.batch < self._batches and slot.layer <= self._layers
        return slot.kind != COLLECTIVE or (slot.batch < _MOST_COLLECTIVES and slot.layer == 0)

    def _aborted(self, frame: Frame) -> AbortedError:
        plain = open_body(Body(frame.encoding, bytes(frame.data)), _LARGEST_NOTICE)
        notice = from_json(
            plain, AbortNotice, lambda reason: WireError(f"an abort that cannot be read: {reason}", peer=frame.source)
        )
        said = printable(f"{notice.error}: {notice.message}")
        return AbortedError(said, run=self._run, peer=notice.rank, layer=notice.layer)

    def stop(self, cause: BaseException) -> None:
        """Make every wait, now and later, raise `cause`; the first cause stays."""
        with self._changed:
            self._stopped = self._stopped or cause
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what stopped the mailbox, if anything has: `AbortedError` if a peer failed."""
        if self._stopped is not None:
            raise self._stopped

    def ready(self, slot: Slot, source: int) -> bool:
        """Whether the message is there whole; raises like `check`."""
        # No lock: it is asked often, and a look into a dictionary sees it before or after a change.
        self.check()
        return (slot, source) in self._whole

    def poll(self, slot: Slot, source: int) -> Body | None:
        """The message if it is there whole, as `take`; None if not."""
        return self.take(slot, source) if self.ready(slot, source) else None

    def missing(self, slot: Slot, sources: Iterable[int]) -> list[int]:
        """Those of `sources` whose message of `slot` is not there yet."""
        with self._changed:
            return [source for source in sources if (slot, source) not in self._whole]

    def any_ready(self, wanted: Collection[tuple[Slot, int]]) -> bool:
        """Whether any of the (slot, source) is there whole; raises like `check`."""
        with self._changed:
            self.check()
            return any(key in self._whole for key in wanted)

    def wait_any(self, wanted: Collection[tuple[Slot, int]], deadline: Deadline) -> bool:
        """Wait until one of the messages is there; False if the deadline passed first. Another thread must `add`."""
        with self._changed:
            while not any(key in self._whole for key in wanted):
                self.check()
                remaining = deadline.remaining()
                if remaining == 0.0:
                    return False
                self._changed.wait(remaining)
            return True

    def take(self, slot: Slot, source: int) -> Body:
        """The message, which must be `ready`; doubles that come later are dropped."""
        with self._changed:
            self.check()
            self._taken[slot[:2]].add((slot, source))
            body = self._whole.pop((slot, source))
            self._held -= len(body.data)
            return body

    def finish(self, batch: int) -> None:
        """Forget the batch: whatever still comes for its data is a double."""
        with self._changed:
            self._finished.add((DATA, batch))
            self._taken.pop((DATA, batch), None)
            self._expected.pop(batch, None)
