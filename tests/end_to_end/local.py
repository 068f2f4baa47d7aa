"""The local backend as a site: its faults are those of `fsdcore.testing`."""

from __future__ import annotations

import threading

from fsd_local import LocalBackend, LocalSettings
from fsdcore.contracts.backend import Backend
from fsdcore.faults import Crash, Delay, Drop, Duplicate, Fault, Reorder
from fsdcore.testing import FaultyBackend
from tests.end_to_end.sites import Site

_FAULTS: dict[str, Fault] = {
    "duplicates": Duplicate(share=0.5),
    "disorder": Reorder(seed=1),
    "delays": Delay(receives=2, share=0.3),
    "lost deliveries": Drop(share=0.3),
}


class LocalSite(Site):
    name = "local"
    most_workers = 64
    bills = False
    channels = LocalBackend.channels

    def __init__(self) -> None:
        self._fault: Fault | None = None

    def faults(self, channel: str) -> tuple[str, ...]:
        del channel
        return tuple(_FAULTS)

    def open(self) -> Backend:
        backend = LocalBackend(LocalSettings(visibility_timeout=0.2, lanes=1))
        return FaultyBackend(backend, self._fault) if self._fault else backend

    def harm(self, fault: str) -> None:
        self._fault = _FAULTS[fault]

    def busy(self) -> int:
        """Only of sessions of this process."""
        return sum(thread.name.startswith("fsd-") for thread in threading.enumerate())

    def lose_a_worker(self, when: str) -> None:
        del when
        self._fault = Crash("send", by=1, skip=1, times=1)

    def heal(self) -> None:
        self._fault = None
