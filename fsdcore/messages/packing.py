"""Packing frames for several targets into as few publishes as the channel's limits allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fsdcore.contracts.channel import Outgoing
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.errors import FrameTooLargeError


class _Bin:
    def __init__(self, target: int) -> None:
        self.target = target
        self.frames: list[Outgoing] = []
        self.size = 0


class Packer:
    """Groups frames into publishes as they come, first fit, and hands on each publish as soon as nothing can join it.

    What is grouped with what depends on the frames and their order alone, never on time.
    """

    def __init__(self, limits: ChannelCapabilities) -> None:
        self._limits = limits
        self._bins: list[_Bin] = []

    def add(self, frames: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
        """Take in the frames of one message; gives the publishes that are full."""
        target = None
        for frame in frames:
            target = frame.target
            yield from self.put(frame)
        if target is not None and not self._limits.multi_target:
            yield from self._close(target)

    def rest(self) -> Iterator[list[Outgoing]]:
        """What is left when all messages have been added."""
        bins, self._bins = self._bins, []
        yield from (home.frames for home in bins)

    def put(self, frame: Outgoing) -> Iterator[list[Outgoing]]:
        """Take in one frame, of a message of which more may come; gives the publish it fills."""
        limits = self._limits
        size = limits.publish_size(len(frame.data))
        home = next((b for b in self._bins if _fits(b, frame.target, size, limits)), None)
        if home is None:
            home = _Bin(frame.target)
            self._bins.append(home)
        home.frames.append(frame)
        home.size += size
        if len(home.frames) == limits.max_publish_frames or home.size == limits.max_publish_bytes:
            self._bins.remove(home)
            yield home.frames

    def _close(self, target: int) -> Iterator[list[Outgoing]]:
        """Where a publish is for one target, no other message joins it."""
        done = [home for home in self._bins if home.target == target]
        self._bins = [home for home in self._bins if home.target != target]
        yield from (home.frames for home in done)


def pack(frames: Iterable[Outgoing], limits: ChannelCapabilities) -> list[list[Outgoing]]:
    """Group `frames` into publishes within `limits`, first fit, largest first.

    Frames of the same size keep their order, so the result depends on the input alone.
    """
    return pack_in_order(sorted(frames, key=lambda frame: -len(frame.data)), limits)


def pack_in_order(frames: Iterable[Outgoing], limits: ChannelCapabilities) -> list[list[Outgoing]]:
    """Group `frames` into publishes within `limits`, first fit, as they come."""
    packer = Packer(limits)
    full = [publish for frame in frames for publish in packer.put(frame)]
    return [*full, *packer.rest()]


def _fits(home: _Bin, target: int, size: int, limits: ChannelCapabilities) -> bool:
    return (
        len(home.frames) < limits.max_publish_frames
        and home.size + size <= limits.max_publish_bytes
        and (limits.multi_target or home.target == target)
    )


def check_publish(frames: Iterable[Outgoing], limits: ChannelCapabilities) -> None:
    """`FrameTooLargeError` if `frames` break `limits` as one publish. For channels to call before they send."""
    listed = list(frames)
    largest = max((len(frame.data) for frame in listed), default=0)
    total = sum(limits.publish_size(len(frame.data)) for frame in listed)
    if largest > limits.max_frame_bytes:
        raise FrameTooLargeError(f"a frame of {largest} bytes; the channel takes {limits.max_frame_bytes}")
    if len(listed) > limits.max_publish_frames:
        raise FrameTooLargeError(f"{len(listed)} frames in one publish; the channel takes {limits.max_publish_frames}")
    if total > limits.max_publish_bytes:
        raise FrameTooLargeError(f"a publish of {total} bytes; the channel takes {limits.max_publish_bytes}")
    if not limits.multi_target and len({frame.target for frame in listed}) > 1:
        raise FrameTooLargeError("frames for several ranks in one publish; the channel takes one rank at a time")
