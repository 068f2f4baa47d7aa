"""The memory of each worker, before it is started: what it holds at its fullest moment.

What a worker holds is known from the plan; what the allocator keeps beside it is not, so the shares of each part are
fitted to peaks of workers that were processes of their own, on the upper side: Graph Challenge networks of 1,024 and
4,096 neurons over 2 to 20 workers, and random values of which 8 % and 48 % are live over 1, 2 and 8
(``tests/estimate/test_memory.py`` compares them).
"""

from __future__ import annotations

import numpy as np

from fsdcore.estimate.profile import Floats, Profile

__all__ = ["memory_bytes"]

# Of its activations, the batch at work holds those before a layer, after it, and some on their way; others wait.
_AT_WORK, _WAITING = 2.3, 1.7
# What one batch needs on its way through a layer is worked off in pieces: of its activations up to a size, a share,
_PIECE_BYTES, _PIECES = 8.4e6, 0.53
# and, up to half of that, a larger one as far as its rows differ, which shows in the bytes they travel as.
_DIFFERENT = 4.47
_LEAST_PACKED = 2.5
# Of the bytes that one layer sends and receives: as a body, as frames, and as what the channel makes of them.
_MESSAGES = 1.17
# What packing the outputs of one batch takes, of its last activations, as far as their rows differ: of the bytes that
# they are packed to, where those are few.
_PACKING = 5.5
_LEAST_OUTPUT = 25.0
# A strip of the inputs on its way, up to this size, of which a worker holds it in several forms.
_STRIP_BYTES, _INPUT_FORMS, _UNPACKED = 8.4e6, 2.2, 4.0
# A piece of the stored plan that is read while its layers come: a share of the weights, up to this size.
_PLAN_PIECE, _STORED = 16.8e6, 0.35
# Buffers that do not depend on the run.
_BUFFERS = 2.9e6


def memory_bytes(profile: Profile, runtime_bytes: float, under_way: int = 1) -> Floats:
    """Bytes by rank, with `under_way` batches like the profile's at once: runtime, weights, and what comes and goes.

    An upper estimate: what is freed is counted as used where the allocator may keep it.
    """
    weights = profile.structure.memory_bytes.astype(np.float64)
    rows = np.array([layer.rows for layer in profile.structure.layers])
    each = 4.0 * (rows * profile.live)
    held = each.max(axis=0)
    packing = _PACKING * np.minimum(each[-1], _LEAST_OUTPUT * profile.outputs)
    reading = _INPUT_FORMS * min(_STRIP_BYTES, _UNPACKED * profile.input_bytes)
    between = under_way * held + np.maximum(packing, reading)
    fullest = np.maximum((_AT_WORK + _WAITING * (under_way - 1)) * held + _passing(profile, held), between)
    plan = np.minimum(_PLAN_PIECE, _STORED * weights)
    return np.asarray(runtime_bytes + weights + plan + fullest + _BUFFERS, np.float64)


def _passing(profile: Profile, held: Floats) -> Floats:
    """By rank, what one batch needs on its way through a layer, beside the activations."""
    travelling = _travelling(profile)
    piece, half = np.minimum(held, _PIECE_BYTES), np.minimum(held, _PIECE_BYTES / 2)
    return _PIECES * piece + _DIFFERENT * np.minimum(half, _LEAST_PACKED * travelling) + _MESSAGES * travelling


def _travelling(profile: Profile) -> Floats:
    """By rank, the most bytes of messages that one layer sends, and the most that one receives."""
    m = profile.messages
    sent, received = np.zeros(profile.live.shape), np.zeros(profile.live.shape)
    np.add.at(sent, (m.layer - 1, m.source), m.body)
    np.add.at(received, (m.layer - 1, m.target), m.body)
    return np.asarray(sent.max(axis=0) + received.max(axis=0), np.float64)
