"""How the samples of a run are cut into batches, and how many of those are under way at once.

What a worker holds of a batch while it computes is several times the batch's activations: rows on their way out, rows
that came, what the kernel reads and what it writes. So that this stays small beside the activations themselves, a batch
whose activations are large is cut into a few that travel together: as many samples are under way as before, and the
results are the same to the bit. A single worker waits for nobody, so it has one batch at a time.
"""

from __future__ import annotations

from typing import NamedTuple

from fsdcore.contracts.settings import RunSettings

# What the activations of all batches under way may take of a worker, unless one batch alone takes more.
_UNDER_WAY_BYTES = 64 * 1024 * 1024

_IN_FLIGHT = RunSettings().in_flight


class _Sizes(NamedTuple):
    """A batch whose activations take up to `whole` bytes stays whole; a larger one is cut into pieces of `piece` bytes,
    or of one in `parts` of what is under way if that is more."""

    whole: int
    piece: int
    parts: int


# Each piece costs a group a message to every peer and layer, and a single worker a pass over its weights.
_IN_A_GROUP, _ALONE = _Sizes(6 << 20, 4 << 20, 6), _Sizes(12 << 20, 12 << 20, 3)


class Batches(NamedTuple):
    """The samples of each batch, in order, and how many batches are under way at once."""

    sizes: list[int]
    in_flight: int


def _most_samples(largest_rows: int) -> int:
    """Samples that may be under way at once."""
    return max(1, _UNDER_WAY_BYTES // (4 * max(1, largest_rows)))


def default_batch_size(largest_rows: int, samples: int, in_flight: int = _IN_FLIGHT) -> int:
    """The samples of a batch where the choice is left to the run, for workers of up to `largest_rows` neurons."""
    most = _most_samples(largest_rows)
    return max(1, samples) if samples <= most else max(1, most // in_flight)


def batches_of(largest_rows: int, samples: int, size: int, in_flight: int = _IN_FLIGHT, *, workers: int) -> Batches:
    """`samples` in batches of `size`, up to `in_flight` of them at once, for workers of up to `largest_rows` neurons.

    Fewer are under way where their activations would take more than 64 MiB; a batch of more than 6 MiB is cut into
    smaller ones, all of which are under way where it alone would be. One worker has one batch at a
    time, of up to 12 MiB or a third of one that is asked for.
    """
    given, alone = _cut(samples, size), workers == 1
    together = 1 if alone else max(1, min(in_flight, len(given), _most_samples(largest_rows) // size))
    piece = _piece(4 * max(1, largest_rows), min(size, samples), together, _ALONE if alone else _IN_A_GROUP)
    cuts = [_cut(each, piece) for each in given]
    return Batches([each for cut in cuts for each in cut], 1 if alone else together * len(cuts[0]))


def _cut(samples: int, size: int) -> list[int]:
    full, rest = divmod(samples, size)
    return [size] * full + [rest] * (rest > 0)


def _piece(sample_bytes: int, size: int, together: int, sizes: _Sizes) -> int:
    """How many samples of a batch of `size`, `together` of which are under way, stay together."""
    if sample_bytes * size <= sizes.whole:
        return size
    most = max(sizes.piece, -(-sample_bytes * size * together // sizes.parts))
    pieces = -(-sample_bytes * size // most)
    return -(-size // pieces)
