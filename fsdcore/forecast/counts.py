"""What a channel makes of a batch's messages: frames, publishes, bytes, by layer and rank.

The rules are those of `fsdcore.wire` and `fsdcore.packing`; where a group of frames must be packed with care, that
very code packs it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsdcore.capabilities import ChannelCapabilities
from fsdcore.channel import Outgoing
from fsdcore.forecast.profile import Messages, Profile
from fsdcore.packing import pack
from fsdcore.record import BLOCK_BYTES
from fsdcore.wire import HEADER_BYTES

__all__ = ["Counts", "count"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Counts:
    """Sent and received in one batch, each int64 `(layers, workers)`; layer 1 sends nothing."""

    messages: Ints
    frames: Ints
    publishes: Ints
    blocks: Ints
    bytes_sent: Ints
    messages_in: Ints
    frames_in: Ints
    bytes_in: Ints


@dataclass(frozen=True, eq=False)
class _Frames:
    """Frames of all messages: the group (layer and source) of each, ascending, its target and its bytes."""

    group: Ints
    target: Ints
    size: Ints


def count(profile: Profile, limits: ChannelCapabilities) -> Counts:
    """What `limits` make of the profile's batch."""
    messages, workers = profile.messages, profile.structure.workers
    layers = len(profile.structure.layers)
    frames = _frames(messages, workers, limits)
    sender = (messages.layer - 1) * workers + messages.source
    receiver = (messages.layer - 1) * workers + messages.target
    frame_receiver = frames.group // workers * workers + frames.target
    publishes, blocks = _publishes(frames, layers * workers, limits)

    def grid(index: Ints, weights: Ints | None = None) -> Ints:
        found = np.bincount(index, weights, layers * workers)
        return found.astype(np.int64).reshape(layers, workers)

    return Counts(
        messages=grid(sender),
        frames=grid(frames.group),
        publishes=publishes.reshape(layers, workers),
        blocks=blocks.reshape(layers, workers),
        bytes_sent=grid(frames.group, frames.size),
        messages_in=grid(receiver),
        frames_in=grid(frame_receiver),
        bytes_in=grid(frame_receiver, frames.size),
    )


def _frames(messages: Messages, workers: int, limits: ChannelCapabilities) -> _Frames:
    room = limits.max_frame_bytes - HEADER_BYTES
    body = messages.body.astype(np.int64)
    pieces = np.maximum(1, -(-body // room))
    which = np.repeat(np.arange(body.size), pieces)
    piece = np.arange(which.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    size = np.minimum(room, body[which] - piece * room) + HEADER_BYTES
    group = (messages.layer - 1) * workers + messages.source
    return _Frames(group[which], messages.target[which], size)


def _publishes(frames: _Frames, groups: int, limits: ChannelCapabilities) -> tuple[Ints, Ints]:
    """Publishes and started blocks of each group."""
    if not limits.multi_target:
        # Packed by target: every (group, target) is a group of its own.
        workers = int(frames.target.max(initial=0)) + 1
        cell, home = np.unique(frames.group * workers + frames.target, return_inverse=True)
        alone = _Frames(home.astype(np.int64), np.zeros_like(frames.target), frames.size)
        counted, started = _packed(alone, cell.size, limits)
        back = cell // workers
        return np.bincount(back, counted, groups).astype(np.int64), np.bincount(back, started, groups).astype(np.int64)
    return _packed(frames, groups, limits)


def _packed(frames: _Frames, groups: int, limits: ChannelCapabilities) -> tuple[Ints, Ints]:
    size = frames.size + limits.frame_overhead_bytes
    number = np.bincount(frames.group, minlength=groups)
    total = np.bincount(frames.group, size, groups).astype(np.int64)
    largest = np.zeros(groups, np.int64)
    np.maximum.at(largest, frames.group, size)
    most, room = limits.max_publish_frames, limits.max_publish_bytes
    # Either all go into one, or the bytes never bind: publishes are filled one after the other, largest first.
    easy = ((total <= room) & (number <= most)) | (largest * most <= room)
    publishes, blocks = _in_order(frames.group, size, groups, most)
    starts = np.searchsorted(frames.group, np.arange(groups + 1))
    for group in np.flatnonzero(~easy & (number > 0)).tolist():
        inside = slice(starts[group], starts[group + 1])
        listed = [Outgoing(t, bytes(n)) for t, n in zip(frames.target[inside], frames.size[inside], strict=True)]
        packed = pack(listed, limits)
        publishes[group] = len(packed)
        sizes = [sum(limits.publish_size(len(frame.data)) for frame in publish) for publish in packed]
        blocks[group] = sum(max(1, -(-each // BLOCK_BYTES)) for each in sizes)
    return publishes, blocks


def _in_order(group: Ints, size: Ints, groups: int, most: int) -> tuple[Ints, Ints]:
    """Publishes of `most` frames each, filled largest first."""
    order = np.lexsort((-size, group))
    number = np.bincount(group, minlength=groups)
    place = np.arange(group.size) - np.repeat(np.cumsum(number) - number, number)
    publishes = -(-number // most)
    home = np.repeat(np.cumsum(publishes) - publishes, number) + place // most
    filled = np.bincount(home, size[order], int(publishes.sum()))
    started = np.maximum(1, np.ceil(filled / BLOCK_BYTES)).astype(np.int64)
    owner = np.repeat(np.arange(groups), publishes)
    return publishes.astype(np.int64), np.bincount(owner, started, groups).astype(np.int64)
