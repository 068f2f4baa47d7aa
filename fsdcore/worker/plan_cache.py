"""Parts of plans that a process keeps, for services that use it again for the next worker."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fsdcore.clock import Clock
from fsdcore.contracts.store import Store
from fsdcore.kernels.base import Kernel, PreparedLayer
from fsdcore.plan.files import RankPlan, open_rank
from fsdcore.plan.plan import LayerPart

_Key = tuple[str, int, int, str]


class _Kept(NamedTuple):
    plan: RankPlan[PreparedLayer]
    size: int


class PlanCache:
    """Keeps the parts that were used last, up to `max_bytes` of weights. May be used from several threads.

    A plan's id tells its content, the partition it is made of included, so what is kept never goes out of date.
    """

    def __init__(self, max_bytes: int = 0) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    @contextmanager
    def opened(
        self, store: Store, plan: str, rank: int, workers: int, kernel: Kernel, clock: Clock
    ) -> Iterator[RankPlan[PreparedLayer]]:
        """As `open_rank`, but from what is kept if it is; kept from then on if it was read to its end."""
        key = (plan, rank, workers, kernel.name)
        known = self._find(key)
        if known is not None:
            yield known.plan
            return
        sizes: list[int] = []

        def prepare(part: LayerPart) -> PreparedLayer:
            sizes.append(part.memory_bytes)
            return kernel.prepare(part)

        opened = open_rank(store, plan, rank, workers, prepare, clock)
        try:
            yield opened
        finally:
            opened.close()
        if len(sizes) == len(opened):
            self._keep(key, _Kept(opened, sum(sizes)))

    def _find(self, key: _Key) -> _Kept | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            # Before the next is read, so that there is room for it as well.
            self._drop(self._max_bytes // 2)
            return None

    def _keep(self, key: _Key, kept: _Kept) -> None:
        with self._lock:
            self._kept[key] = kept
            self._drop(self._max_bytes)

    def _drop(self, limit: int) -> None:
        while sum(kept.size for kept in self._kept.values()) > limit:
            self._kept.popitem(last=False)
