"""Where the end-to-end tests run: a backend, with all that it needs, and what it can tell of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fsdcore.backend import Backend
from fsdcore.config import RunSettings
from fsdcore.session import Session

__all__ = ["Site"]


class Site(ABC):
    """A backend whose services are there for up to `most_workers` workers."""

    name: str
    most_workers: int
    bills = True

    @property
    def environ(self) -> Mapping[str, str]:
        """Variables that its clients must have."""
        return {}

    @abstractmethod
    def open(self) -> Backend:
        """A new backend, as a client of its own would have it; the caller closes it."""

    def session(self, **run: Any) -> Session:
        """A session on a new backend; the caller closes it."""
        settings = {"method": "block", "deadline_seconds": 60.0, "run_seconds": 240.0, **run}
        return Session(self.open(), RunSettings(backend=self.name, **settings))

    @property
    @abstractmethod
    def channels(self) -> tuple[str, ...]:
        """The kinds of channel it has."""

    @abstractmethod
    def faults(self, channel: str) -> tuple[str, ...]:
        """The names of the faults it can be told to make that concern runs over `channel`."""

    @abstractmethod
    def harm(self, fault: str) -> None:
        """Make the services misbehave, until `heal`, in a way that must not change a result."""

    def harmed(self) -> bool:
        """Whether a request has met the last fault; True where the site cannot tell."""
        return True

    @property
    def losses(self) -> tuple[str, ...]:
        """When a worker may be lost, in words."""
        return ("soon",)

    @abstractmethod
    def lose_a_worker(self, when: str) -> None:
        """Have a worker of the runs that follow end without a word, until `heal`."""

    def block(self, channel: str) -> bool:
        """Have `channel` take nothing from workers, until `heal`; False if the site cannot be told to."""
        del channel
        return False

    @abstractmethod
    def heal(self) -> None:
        """Misbehave no longer."""

    def requests(self, run: str) -> Counter[str] | None:
        """The calls that the services saw for a run, by the names of the record's counters; None if nobody counts."""
        del run
        return None
