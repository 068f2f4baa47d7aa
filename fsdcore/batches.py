"""How the samples of a run are cut into batches, and how many of those are under way at once.

What a worker holds of a batch while it computes is several times the batch's activations: rows on their way out, rows
that came, what the kernel reads and what it writes. So that this stays small beside the activations themselves, a batch
whose activations are large is cut into a few that travel together: as many samples are under way as before, and the
results are the same to the bit.
"""

from __future__ import annotations

from typing import NamedTuple

from fsdcore.config import RunSettings

__all__ = ["Batches", "batches_of", "default_batch_size"]

# What the activations of all batches under way may take of a worker, unless one batch alone takes more.
_UNDER_WAY_BYTES = 64 * 1024 * 1024
# A batch whose activations take up to so much stays whole.
_WHOLE_BYTES = 6 * 1024 * 1024
# A larger one is cut into pieces of so much, or of this share of what is under way if that is more: each piece costs
# a message to every peer and layer.
_PIECE_BYTES = 4 * 1024 * 1024
_SHARE = 6


class Batches(NamedTuple):
    """The samples of each batch, in order, and how many batches are under way at once."""

    sizes: list[int]
    in_flight: int


def _most_samples(largest_rows: int) -> int:
    """Samples that may be under way at once."""
    return max(1, _UNDER_WAY_BYTES // (4 * max(1, largest_rows)))


def default_batch_size(largest_rows: int, samples: int, in_flight: int = RunSettings.in_flight) -> int:
    """The samples of a batch where the choice is left to the run, for workers of up to `largest_rows` neurons."""
    most = _most_samples(largest_rows)
    return max(1, samples) if samples <= most else max(1, most // in_flight)


def batches_of(largest_rows: int, samples: int, size: int, in_flight: int = RunSettings.in_flight) -> Batches:
    """`samples` in batches of `size`, up to `in_flight` of them at once, for workers of up to `largest_rows` neurons.

    Fewer are under way where their activations would take more than 64 MiB; a batch of more than 6 MiB is cut into
    smaller ones, all of which are under way where it alone would be.
    """
    given = _cut(samples, size)
    together = max(1, min(in_flight, len(given), _most_samples(largest_rows) // size))
    piece = _piece(largest_rows, min(size, samples), together)
    cuts = [_cut(each, piece) for each in given]
    return Batches([each for cut in cuts for each in cut], together * len(cuts[0]))


def _cut(samples: int, size: int) -> list[int]:
    full, rest = divmod(samples, size)
    return [size] * full + [rest] * (rest > 0)


def _piece(largest_rows: int, size: int, together: int) -> int:
    """How many samples of a batch of `size`, `together` of which are under way, stay together."""
    sample_bytes = 4 * max(1, largest_rows)
    if sample_bytes * size <= _WHOLE_BYTES:
        return size
    most = max(_PIECE_BYTES, -(-sample_bytes * size * together // _SHARE))
    pieces = -(-sample_bytes * size // most)
    return -(-size // pieces)
