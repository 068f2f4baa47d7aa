"""What the local services were asked, call by call: counters of runs are checked against it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One call: its `kind`, what it was about, how many `items` and payload bytes it carried, and how it `ended`.

    `kind` is the method of a Pub/Sub call (``Publish``), what a request to Cloud Storage is billed as (``put``,
    ``get``, ``list``, ``delete``, ``stat``, ``bucket``, ``part``), or ``invoke``. `ended` is ``OK`` or the code of
    the error, as the service writes it.
    """

    kind: str
    resource: str
    items: int = 0
    size: int = 0
    ended: str = "OK"


def ended_with(status: int) -> str:
    """How a call ended that was answered with this status of HTTP."""
    return "OK" if status < 400 else str(status)


class CallLog:
    """Calls in the order in which they ended. May be used from several threads."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def clear(self) -> None:
        """Forget all calls so far."""
        with self._lock:
            self._calls.clear()

    def __iter__(self) -> Iterator[Call]:
        with self._lock:
            return iter(list(self._calls))

    def of(self, kind: str, ended: str | None = "OK") -> list[Call]:
        """The calls of a kind that ended so; however they ended if None."""
        return [call for call in self if call.kind == kind and ended in (None, call.ended)]

    def count(self, kind: str, ended: str | None = "OK") -> int:
        """How many calls `of` gives."""
        return len(self.of(kind, ended))

    def summary(self) -> dict[str, int]:
        """How many calls of each kind, whatever their end."""
        return dict(Counter(call.kind for call in self))
