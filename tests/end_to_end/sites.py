"""Where the end-to-end tests run: a backend, with all that it needs, and what it can tell of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from fsdcore.client.session import Session
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.settings import RunSettings
from fsdcore.record.record import Record

_CALLS = ("puts", "gets", "lists", "invocations")
# Of the object channel these are no calls of a service: its puts and gets are.
_QUEUE_CALLS = ("publishes", "receives", "acknowledges")


def bits(outputs: Any) -> tuple[tuple[int, ...], bytes, bytes, bytes]:
    """Sparse outputs `(samples, neurons)` as what can be compared to the bit: shape, bounds, columns, values."""
    found = sp.csr_array(outputs)
    # The width of indices is scipy's own choice.
    bounds, columns = (array.astype(np.int64).tobytes() for array in (found.indptr, found.indices))
    assert found.dtype == np.float32
    return found.shape, bounds, columns, found.data.tobytes()


class Site(ABC):
    """A backend whose services are there for up to `most_workers` workers."""

    name: str
    most_workers: int
    bills = True

    @property
    def environ(self) -> Mapping[str, str]:
        """Variables that its clients must have."""
        return {}

    @property
    def of_commands(self) -> Mapping[str, str]:
        """More variables, which lead the command `fsd` to what `open` opens."""
        return {}

    def busy(self) -> int:
        """How many workers run, as their processes tell, or their threads where they have none."""
        return 0

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

    def withhold_a_worker(self) -> bool:
        """Have a worker of the runs that follow never begin, until `heal`; False if the site cannot."""
        return False

    def block(self, channel: str) -> str:
        """Have `channel` take nothing from workers, until `heal`.

        Gives a pattern of what the cause then says; nothing if the site cannot be told to.
        """
        del channel
        return ""

    @abstractmethod
    def heal(self) -> None:
        """Misbehave no longer."""

    def requests(self, run: str) -> Counter[str] | None:
        """The calls that the services saw for a run, by the names of the record's counters; None if nobody counts."""
        del run
        return None

    def figures(self, run: str) -> Mapping[str, float]:
        """What the services billed and saw of the last session, whose only run this was; empty if nobody looks."""
        del run
        return {}


def calls_of(record: Record) -> Counter[str]:
    """The calls of a run: those that its record counts, and those that carry the record itself.

    These are a publish or put by each worker but the first, and its put at the end.
    """
    objects = record.channel == "object"
    names = _CALLS if objects else (*_CALLS, *_QUEUE_CALLS)
    made = Counter({name: record.counters[name] for name in names})
    made["puts"] += 1
    made["puts" if objects else "publishes"] += record.workers - 1
    return made
