"""The memory of each worker, before it is started: what it holds at its fullest moment."""

from __future__ import annotations

import numpy as np

from fsdcore.forecast.profile import Floats, Profile

__all__ = ["memory_bytes"]

# Samples of the input that the loop multiplies at a time, and floats of one tile of the kernel.
_FIRST_WIDTH, _TILE_FLOATS = 512, 128 * 1024
_PLAN_READ = 16 << 20
# A message's bytes lie as a body, as frames, and as what the channel makes of them.
_COPIES = 2.7


def memory_bytes(profile: Profile, runtime_bytes: float) -> Floats:
    """Bytes by rank for the profile's batch: runtime, weights, and the largest of what comes and goes.

    An upper estimate: what is freed is counted as used where the allocator may keep it.
    """
    weights = profile.structure.memory_bytes.astype(np.float64)
    moments = [_loading(weights), _first(profile), _between(profile), _at_the_end(profile)]
    return np.asarray(runtime_bytes + weights + np.max(moments, axis=0), np.float64)


def _loading(weights: Floats) -> Floats:
    """The stored plan is read in pieces, each unpacked while it is held."""
    return np.asarray(np.minimum(weights, _PLAN_READ) * 0.5, np.float64)


def _first(profile: Profile) -> Floats:
    """The input, by row and by sample, the first activations, and a slice of the product."""
    rows = profile.structure.layers[0].rows
    width = np.minimum(_FIRST_WIDTH, profile.live[0])
    return np.asarray(4.0 * rows * (profile.live[0] + 3 * width) + 6 * profile.input_bytes, np.float64)


def _between(profile: Profile) -> Floats:
    """The fullest moment after the first layer: encoding, multiplying, decoding, or cutting dead samples out."""
    layers, live = profile.structure.layers, profile.live
    rows = np.array([layer.rows for layer in layers])
    # The samples that a rank carries out of a layer are those that it carries into the next, or fewer.
    carried = np.minimum(live[:-1], live[1:])
    before, after = rows[:-1] * carried, rows[1:] * live[1:]
    encoding, decoding, sent, received = _messages(profile)
    moments = (
        4.0 * before + encoding[1:] + _COPIES * sent[1:],
        4.0 * (before + after) + 4.0 * _TILE_FLOATS,
        4.0 * after + decoding[1:] + _COPIES * received[1:],
        9.0 * after,
    )
    return np.asarray(np.max(moments, axis=0).max(axis=0, initial=0.0), np.float64)


def _messages(profile: Profile) -> tuple[Floats, Floats, Floats, Floats]:
    """`(layers, workers)`: the most that one message takes to encode, and to decode; bytes that go out, and come in."""
    m, shape = profile.messages, profile.live.shape
    encoding, decoding, sent, received = (np.zeros(shape) for _ in range(4))
    out, into = (m.layer - 1, m.source), (m.layer - 1, m.target)
    held = m.rows * profile.live[out]
    cut = np.where(m.live < 0.999 * profile.live[out], 5.0 * m.rows * m.live, 0.0)
    np.maximum.at(encoding, out, 5.0 * held + cut + 16.0 * m.nonzeros)
    np.maximum.at(decoding, into, 5.0 * m.rows * m.live + 4.0 * m.rows * profile.live[into] + 12.0 * m.nonzeros)
    np.add.at(sent, out, m.body)
    np.add.at(received, into, m.body)
    return encoding, decoding, sent, received


def _at_the_end(profile: Profile) -> Floats:
    """The last activations, and their encoding in the making."""
    rows = profile.structure.layers[-1].rows
    return np.asarray(8.0 * rows * profile.live[-1] + 3 * profile.outputs, np.float64)
