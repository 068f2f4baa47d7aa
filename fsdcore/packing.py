"""Packing frames for several targets into as few publishes as the channel's limits allow."""

from __future__ import annotations

from collections.abc import Iterable

from fsdcore.capabilities import ChannelCapabilities
from fsdcore.channel import Outgoing
from fsdcore.errors import FrameTooLargeError

__all__ = ["check_publish", "pack"]


class _Bin:
    def __init__(self, target: int) -> None:
        self.target = target
        self.frames: list[Outgoing] = []
        self.size = 0


def pack(frames: Iterable[Outgoing], limits: ChannelCapabilities) -> list[list[Outgoing]]:
    """Group `frames` into publishes within `limits`, first fit, largest first.

    Frames of the same size keep their order, so the result depends on the input alone.
    """
    bins: list[_Bin] = []
    for frame in sorted(frames, key=lambda frame: -len(frame.data)):
        size = limits.publish_size(len(frame.data))
        home = next((b for b in bins if _fits(b, frame.target, size, limits)), None)
        if home is None:
            home = _Bin(frame.target)
            bins.append(home)
        home.frames.append(frame)
        home.size += size
    return [home.frames for home in bins]


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
