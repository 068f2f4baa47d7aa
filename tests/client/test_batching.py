"""How samples are cut into batches: all of them once, as many under way as were asked for, none too large."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.client.batching import batches_of


@given(
    rows=st.integers(0, 1 << 20),
    samples=st.integers(1, 100_000),
    size=st.integers(1, 1 << 31),
    in_flight=st.integers(1, 64),
    workers=st.sampled_from([1, 8]),
)
def test_every_sample_is_in_one_batch_and_what_is_under_way_is_bounded(
    rows: int, samples: int, size: int, in_flight: int, workers: int
) -> None:
    sizes, together = batches_of(rows, samples, size, in_flight, workers=workers)
    assert sum(sizes) == samples
    assert min(sizes) > 0
    assert max(sizes) <= size
    under_way = 4 * rows * max(sizes) * min(together, len(sizes))
    # Pieces of a batch differ by rounding, which is at most a sample each.
    assert under_way <= max(4 * rows * min(size, samples), 64 << 20) + 4 * rows * together


@pytest.mark.parametrize(
    ("rows", "samples", "size", "in_flight", "sizes", "together"),
    [
        (100, 1_000, 300, 4, [300, 300, 300, 100], 4),
        (128, 10_000, 10_000, 1, [10_000], 1),
        (2_048, 8_192, 8_192, 1, [1_366, 1_366, 1_366, 1_366, 1_366, 1_362], 6),
        (512, 8_192, 8_192, 4, [2_048] * 4, 4),
        (2_048, 8_192, 2_048, 4, [1_024] * 8, 8),
    ],
)
def test_large_batches_are_cut_into_a_few_that_travel_together(
    rows: int, samples: int, size: int, in_flight: int, sizes: list[int], together: int
) -> None:
    assert batches_of(rows, samples, size, in_flight, workers=8) == (sizes, together)


@pytest.mark.parametrize(
    ("rows", "samples", "size", "sizes"),
    [
        (1_024, 2_000, 2_000, [2_000]),
        (1_024, 10_000, 10_000, [3_334, 3_334, 3_332]),
        (4_096, 8_192, 1_024, [512] * 16),
    ],
)
def test_a_single_worker_has_one_batch_at_a_time(rows: int, samples: int, size: int, sizes: list[int]) -> None:
    assert batches_of(rows, samples, size, 4, workers=1) == (sizes, 1)
