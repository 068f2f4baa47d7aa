"""What a channel makes of a batch's messages: frames, publishes, bytes, by layer and rank.

The rules are those of `fsdcore.messages.frames` and `fsdcore.messages.packing`; where a group of frames must be packed
with care, that very code packs it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Int64s
from fsdcore.contracts.channel import Outgoing
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.estimate.profile import Messages, Profile
from fsdcore.messages.frames import HEADER_BYTES
from fsdcore.messages.object_channel import ENTRY_BYTES, HEAD_BYTES
from fsdcore.messages.packing import pack_in_order
from fsdcore.messages.segments import FRONT_BYTES
from fsdcore.record.record import BLOCK_BYTES


@dataclass(frozen=True, eq=False)
class Counts:
    """Sent and received in one batch, each int64 `(layers, workers)`; layer 1 sends nothing."""

    messages: Int64s
    frames: Int64s
    publishes: Int64s
    blocks: Int64s
    bytes_sent: Int64s
    messages_in: Int64s
    frames_in: Int64s
    bytes_in: Int64s


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of all messages in the order in which they are sent: `group`, that is
    ``(layer - 1) * workers + source``, ascending; `target`; `size`, bytes with the header."""

    group: Int64s
    target: Int64s
    size: Int64s

    @property
    def place(self) -> Int64s:
        """Of each frame, how many of its group come before it."""
        return _places(self.group)


@dataclass(frozen=True, eq=False)
class Publishes:
    """Publishes in order of group and of leaving: `group`, `counted` bytes, as the channel counts them, and `after`,
    how many frames of the group are there when it leaves. `of_frame`: the publish of each frame."""

    group: Int64s
    counted: Int64s
    after: Int64s
    of_frame: Int64s


def count(profile: Profile, limits: ChannelCapabilities) -> Counts:
    """What `limits` make of the profile's batch."""
    workers, layers = profile.structure.workers, len(profile.structure.layers)
    messages = as_sent(profile.messages)
    frames = frames_of(messages, workers, limits)
    return counts_of(messages, frames, publishes_of(frames, limits), (layers, workers))


def counts_of(messages: Messages, frames: Frames, publishes: Publishes, shape: tuple[int, int]) -> Counts:
    """The sums by layer and rank; `shape` is (layers, workers)."""
    workers = shape[1]
    sender = (messages.layer - 1) * workers + messages.source
    receiver = (messages.layer - 1) * workers + messages.target
    frame_receiver = frames.group // workers * workers + frames.target
    started = np.maximum(1, -(-publishes.counted // BLOCK_BYTES))

    def grid(index: Int64s, weights: Int64s | None = None) -> Int64s:
        found = np.bincount(index, weights, shape[0] * workers)
        return found.astype(np.int64).reshape(shape)

    return Counts(
        messages=grid(sender),
        frames=grid(frames.group),
        publishes=grid(publishes.group),
        blocks=grid(publishes.group, started),
        bytes_sent=grid(frames.group, frames.size),
        messages_in=grid(receiver),
        frames_in=grid(frame_receiver),
        bytes_in=grid(frame_receiver, frames.size),
    )


def as_sent(messages: Messages) -> Messages:
    """The messages in the order in which a rank sends those of a layer, on which its publishes depend."""
    m = messages
    order = np.lexsort((m.target, -m.rows, m.source, m.layer))
    layer, source, target, rows = (array[order] for array in (m.layer, m.source, m.target, m.rows))
    live, nonzeros, body = (array[order] for array in (m.live, m.nonzeros, m.body))
    return Messages(layer, source, target, rows, live, nonzeros, body)


def frames_of(messages: Messages, workers: int, limits: ChannelCapabilities) -> Frames:
    """The frames of messages that are in order of sending."""
    room = limits.max_frame_bytes - HEADER_BYTES
    body = messages.body.astype(np.int64)
    pieces = np.maximum(1, -(-body // room))
    which = np.repeat(np.arange(body.size), pieces)
    piece = np.arange(which.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    size = np.minimum(room, body[which] - piece * room) + HEADER_BYTES
    group = (messages.layer - 1) * workers + messages.source
    return Frames(group[which], messages.target[which], size)


def beyond_front(frames: Frames, workers: int) -> npt.NDArray[np.bool_]:
    """Of each frame, whether its part of an object channel's object ends beyond what is read at once.

    An object has an index of its targets, then their parts in order of target.
    """
    order = np.lexsort((frames.target, frames.group))
    group, target, size = frames.group[order], frames.target[order], frames.size[order]
    changes = (np.diff(group, prepend=-1) != 0) | (np.diff(target, prepend=-1) != 0)
    targets = np.bincount(group[changes], minlength=int(group.max(initial=-1)) + 1)
    end = np.cumsum(size)
    first = np.searchsorted(group, group)
    before = np.where(first > 0, end[first - 1], 0)
    part = np.cumsum(changes) - 1
    last = np.zeros(int(changes.sum()), np.int64)
    np.maximum.at(last, part, end - before + HEAD_BYTES + ENTRY_BYTES * targets[group])
    found = np.empty(order.size, np.bool_)
    # Of a part in several frames, the first stands for it.
    found[order] = changes & (last[part] > FRONT_BYTES)
    return found


def publishes_of(frames: Frames, limits: ChannelCapabilities) -> Publishes:
    """How the frames of each group are packed."""
    size = frames.size + limits.frame_overhead_bytes
    # What is packed together: a group's frames, or those of one message where a publish has one target.
    joined = frames.group
    if not limits.multi_target:
        changes = (np.diff(frames.group, prepend=-1) != 0) | (np.diff(frames.target, prepend=-1) != 0)
        joined = np.cumsum(changes) - 1
    number = _packed(Frames(joined, frames.target, frames.size), size, limits)
    made = np.zeros(int(joined.max(initial=-1)) + 1, np.int64)
    np.maximum.at(made, joined, number + 1)
    of_frame = (np.cumsum(made) - made)[joined] + number
    total = int(made.sum())
    held, counted = np.bincount(of_frame, minlength=total), np.bincount(of_frame, size, total).astype(np.int64)
    group, last = np.zeros(total, np.int64), np.zeros(total, np.int64)
    group[of_frame] = frames.group
    np.maximum.at(last, of_frame, frames.place + 1)
    full = (held == limits.max_publish_frames) | (counted == limits.max_publish_bytes) | (not limits.multi_target)
    in_group = np.bincount(frames.group, minlength=int(frames.group.max(initial=-1)) + 1)
    return Publishes(group, counted, np.where(full, last, in_group[group]), of_frame)


def _places(group: Int64s) -> Int64s:
    number = np.bincount(group)
    return np.asarray(np.arange(group.size) - np.repeat(np.cumsum(number) - number, number), np.int64)


def _packed(frames: Frames, size: Int64s, limits: ChannelCapabilities) -> Int64s:
    """Of each frame the number of its publish within what is packed together, in order of leaving."""
    group, groups = frames.group, int(frames.group.max(initial=-1)) + 1
    number = np.bincount(group, minlength=groups)
    total = np.bincount(group, size, groups).astype(np.int64)
    largest = np.zeros(groups, np.int64)
    np.maximum.at(largest, group, size)
    most, room = limits.max_publish_frames, limits.max_publish_bytes
    # Either all go into one, or the bytes never bind: publishes are filled one after the other.
    easy = ((total <= room) & (number <= most)) | (largest * most <= room)
    found = frames.place // most
    starts = np.searchsorted(group, np.arange(groups + 1))
    for hard in np.flatnonzero(~easy & (number > 0)).tolist():
        inside = slice(starts[hard], starts[hard + 1])
        found[inside] = _with_care(frames.target[inside], frames.size[inside], limits)
    return found


def _with_care(target: Int64s, size: Int64s, limits: ChannelCapabilities) -> Int64s:
    listed = [Outgoing(t, bytes(n)) for t, n in zip(target.tolist(), size.tolist(), strict=True)]
    place = {id(frame): number for number, frame in enumerate(listed)}
    found = np.empty(target.size, np.int64)
    for number, publish in enumerate(pack_in_order(listed, limits)):
        found[[place[id(frame)] for frame in publish]] = number
    return found
