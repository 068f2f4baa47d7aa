"""The memory of each worker, before it is started: what it holds at its fullest moment.

What a worker holds is known from the plan; what the allocator keeps beside it is not, so the shares of each part are
fitted to peaks of workers that were processes of their own, on the upper side: Graph Challenge networks of 1,024 and
4,096 neurons over 2 to 20 workers, and random values of which 8 % and 48 % are live over 2 and 8
(``tests/forecast/test_memory.py`` compares them).
"""

from __future__ import annotations

import numpy as np

from fsdcore.forecast.profile import Floats, Profile

__all__ = ["memory_bytes"]

# Of the activations of all batches under way: those before a layer and after it.
_ACTIVATIONS = 1.94
# What one batch needs on its way through a layer is worked off in pieces: of its activations up to this size, a share,
_PIECE_BYTES = 4.2e6
_PIECES = 0.53
# and a larger one as far as its rows differ, which shows in the bytes they travel as.
_DIFFERENT = 4.47
_LEAST_PACKED = 2.5
# Of the bytes that one layer sends and receives: as a body, as frames, and as what the channel makes of them.
_MESSAGES = 1.17
# Buffers that do not depend on the run.
_BUFFERS = 2.9e6


def memory_bytes(profile: Profile, runtime_bytes: float, under_way: int = 1) -> Floats:
    """Bytes by rank, with `under_way` batches like the profile's at once: runtime, weights, and what comes and goes.

    An upper estimate: what is freed is counted as used where the allocator may keep it.
    """
    weights = profile.structure.memory_bytes.astype(np.float64)
    rows = np.array([layer.rows for layer in profile.structure.layers])
    held = 4.0 * (rows * profile.live).max(axis=0)
    travelling = _travelling(profile)
    piece = np.minimum(held, _PIECE_BYTES)
    passing = _PIECES * piece + _DIFFERENT * np.minimum(piece, _LEAST_PACKED * travelling) + _MESSAGES * travelling
    return np.asarray(runtime_bytes + weights + _ACTIVATIONS * under_way * held + passing + _BUFFERS, np.float64)


def _travelling(profile: Profile) -> Floats:
    """By rank, the most bytes of messages that one layer sends, and the most that one receives."""
    m = profile.messages
    sent, received = np.zeros(profile.live.shape), np.zeros(profile.live.shape)
    np.add.at(sent, (m.layer - 1, m.source), m.body)
    np.add.at(received, (m.layer - 1, m.target), m.body)
    return np.asarray(sent.max(axis=0) + received.max(axis=0), np.float64)
