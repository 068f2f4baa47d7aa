"""Parts of plans that a process keeps, for services that use it again for the next worker."""

from __future__ import annotations

import threading
from collections import OrderedDict

from fsdcore.plan import RankPart
from fsdcore.plan_store import read_rank
from fsdcore.store import Store

__all__ = ["PlanCache"]

_Key = tuple[str, int, int]


class PlanCache:
    """Keeps the parts that were read last, up to `max_bytes` of weights. May be used from several threads.

    A plan's id tells its content, so what is kept never goes out of date.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._parts: OrderedDict[_Key, RankPart] = OrderedDict()

    def read(self, store: Store, plan: str, rank: int, workers: int) -> RankPart:
        """As `read_rank`, but only once for each part that is kept."""
        key = (plan, rank, workers)
        with self._lock:
            if key in self._parts:
                self._parts.move_to_end(key)
                return self._parts[key]
            # Before the next is read, so that there is room for it as well.
            self._drop(self._max_bytes // 2)
        part = read_rank(store, plan, rank, workers)
        with self._lock:
            self._parts[key] = part
            self._drop(self._max_bytes)
        return part

    def _drop(self, limit: int) -> None:
        while sum(part.memory_bytes for part in self._parts.values()) > limit:
            self._parts.popitem(last=False)
