"""Parts of plans that a process keeps."""

from __future__ import annotations

import pytest

from fsd_local.stores import MemoryStore
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.store import CountingStore
from fsdcore.kernels import make_kernel
from fsdcore.kernels.base import PreparedLayer
from fsdcore.partition import make_partition
from fsdcore.plan.files import RankPlan, read_rank, write_plan
from fsdcore.testing import random_network
from fsdcore.worker.plan_cache import PlanCache

NETWORK = random_network((12, 16, 10))
LARGE = 1 << 30


class Reads:
    """A store with a plan for two workers, and what is read of it."""

    def __init__(self) -> None:
        self.count = 0
        memory = MemoryStore()
        write_plan(memory, "plan", NETWORK, make_partition(NETWORK, 2, "block", 0))
        self.store = CountingStore(memory, self._add)

    def _add(self, counter: str) -> None:
        self.count += 1

    def of(self, cache: PlanCache, rank: int, kernel: str = "scipy") -> tuple[RankPlan[PreparedLayer], int]:
        """What the cache gives once all its layers have been used, and how many requests it took."""
        before = self.count
        with cache.opened(self.store, "plan", rank, 2, make_kernel(kernel), SYSTEM_CLOCK) as plan:
            for number in range(len(plan)):
                assert plan.layers[number].rows > 0
        return plan, self.count - before


@pytest.fixture
def reads() -> Reads:
    return Reads()


def test_a_part_is_read_once(reads: Reads) -> None:
    cache = PlanCache(LARGE)
    first, requests = reads.of(cache, 0)
    assert requests > 0
    assert reads.of(cache, 0) == (first, 0)


def test_each_rank_has_its_own_part(reads: Reads) -> None:
    cache = PlanCache(LARGE)
    plans = [reads.of(cache, rank)[0] for rank in (0, 1, 0)]
    assert plans[0] is plans[2] is not plans[1]


def test_what_is_over_the_bound_is_not_kept(reads: Reads) -> None:
    for bound in (0, 1):
        cache = PlanCache(bound)
        reads.of(cache, 0)
        assert reads.of(cache, 0)[1] > 0


def test_the_part_used_last_is_kept(reads: Reads) -> None:
    size = read_rank(reads.store, "plan", 0, 2, SYSTEM_CLOCK).memory_bytes
    cache = PlanCache(2 * size + 1)
    for rank in (0, 1):
        reads.of(cache, rank)
    assert reads.of(cache, 1)[1] == 0


def test_a_part_whose_use_failed_is_not_kept(reads: Reads) -> None:
    cache = PlanCache(LARGE)
    with pytest.raises(KeyError), cache.opened(reads.store, "plan", 0, 2, make_kernel("scipy"), SYSTEM_CLOCK):
        raise KeyError
    assert reads.of(cache, 0)[1] > 0
