"""Repair of a partition that misses its balance."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.partition.hypergraph import largest_load, rebalance, share_out


def rows_of(sizes: list[int], columns: int = 60) -> sp.csr_array:
    reads = np.arange(columns)[None, :] < np.array(sizes)[:, None]
    return sp.csr_array(reads.astype(np.float32))


def load(sizes: list[int], owners: np.ndarray[tuple[int, ...], np.dtype[np.int32]], workers: int) -> int:
    return int(np.bincount(owners, sizes, workers).max())


@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=60),
    workers=st.integers(1, 9),
    seed=st.integers(0, 1000),
    with_before=st.booleans(),
)
@settings(deadline=None)
def test_repair_never_makes_the_fullest_rank_fuller(
    sizes: list[int], workers: int, seed: int, with_before: bool
) -> None:
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, workers, len(sizes)).astype(np.int32)
    before = rng.integers(0, workers, 60).astype(np.int32) if with_before else None
    limit = largest_load(np.array(sizes), workers)
    repaired = rebalance(rows_of(sizes), owners, before, workers, limit)
    assert repaired.min() >= 0
    assert repaired.max() < workers
    assert load(sizes, repaired, workers) <= max(limit, load(sizes, owners, workers))


@pytest.mark.parametrize("workers", [2, 3, 8, 17])
def test_equal_rows_are_spread_from_one_rank_to_the_limit(workers: int) -> None:
    sizes = [5] * 100
    limit = largest_load(np.array(sizes), workers)
    repaired = rebalance(rows_of(sizes), np.zeros(100, np.int32), None, workers, limit)
    assert load(sizes, repaired, workers) <= limit


def test_rows_are_exchanged_where_no_move_helps() -> None:
    sizes = [6, 5, 4, 3]
    repaired = rebalance(rows_of(sizes), np.array([0, 0, 1, 1], np.int32), None, 2, 9)
    assert load(sizes, repaired, 2) == 9


def test_a_partition_within_the_limit_is_left_as_it_is() -> None:
    owners = np.array([0, 1, 0, 1], np.int32)
    assert rebalance(rows_of([3, 3, 3, 3]), owners, None, 2, 6).tolist() == owners.tolist()


def test_the_row_that_costs_least_is_moved() -> None:
    weights = sp.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 1]], np.float32))
    before = np.array([0, 0, 1], np.int32)
    # Rank 0 has all; rank 1 owns input 2, which row 2 alone reads only.
    repaired = rebalance(weights, np.zeros(4, np.int32), before, 2, 6)
    assert repaired.tolist() == [0, 0, 1, 0]


def test_rows_without_load_go_where_the_fewest_neurons_are() -> None:
    owners = np.array([0, 0, 0, 1, 9, 9, 9], np.int32)
    share_out(owners, np.array([4, 5, 6]), 3)
    assert np.bincount(owners).tolist() == [3, 2, 2]
