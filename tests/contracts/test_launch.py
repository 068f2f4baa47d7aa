"""The worker tree: every rank is started once, whatever its shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fsdcore.contracts.compute import children


@given(st.integers(1, 300), st.integers(1, 320))
def test_every_rank_but_the_root_has_one_parent(workers: int, branching: int) -> None:
    started = [child for rank in range(workers) for child in children(rank, workers, branching)]
    assert sorted(started) == list(range(1, workers))


@given(st.integers(1, 300), st.integers(1, 20))
def test_nobody_starts_more_than_the_fan_out_and_parents_come_first(workers: int, branching: int) -> None:
    for rank in range(workers):
        started = children(rank, workers, branching)
        assert len(started) <= branching
        assert all(child > rank for child in started)
