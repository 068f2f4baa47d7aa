"""The memory of each worker, before it is started: what it holds at its fullest moment.

What a worker holds is known from the plan; what the allocator keeps beside it is not, so the shares of each part are
fitted to peaks of workers that were processes of their own (``python -m benchmarks.forecast``), on the upper side.
"""

from __future__ import annotations

import numpy as np

from fsdcore.forecast.profile import Floats, Profile

__all__ = ["memory_bytes"]

# Of the activations of the largest layer: those before it and after it, and the rows of a message among them.
_ACTIVATIONS = 2.5
# Of the encoded input: as it came, unpacked, and sorted by sample.
_INPUT = 10.0
# Of the bytes that one layer sends and receives: as a body, as frames, and as what the channel makes of them.
_MESSAGES = 1.85


def memory_bytes(profile: Profile, runtime_bytes: float, under_way: int = 1) -> Floats:
    """Bytes by rank, with `under_way` of the profile's batches at once: runtime, weights, and what comes and goes.

    An upper estimate: what is freed is counted as used where the allocator may keep it.
    """
    weights = profile.structure.memory_bytes.astype(np.float64)
    rows = np.array([layer.rows for layer in profile.structure.layers])
    held = 4.0 * (rows * profile.live).max(axis=0)
    batch = _ACTIVATIONS * held + _INPUT * profile.input_bytes + _MESSAGES * _travelling(profile)
    return np.asarray(runtime_bytes + weights + under_way * batch, np.float64)


def _travelling(profile: Profile) -> Floats:
    """By rank, the most bytes of messages that one layer sends, and the most that one receives."""
    m = profile.messages
    sent, received = np.zeros(profile.live.shape), np.zeros(profile.live.shape)
    np.add.at(sent, (m.layer - 1, m.source), m.body)
    np.add.at(received, (m.layer - 1, m.target), m.body)
    return np.asarray(sent.max(axis=0) + received.max(axis=0), np.float64)
