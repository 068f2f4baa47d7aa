"""What the local services have in common: a log of what they were asked, and faults that may change at any time."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from fsd_emulators.gcp.calls import CallLog
from fsd_emulators.server import Server

_Faults = TypeVar("_Faults")


class _Faulty(Protocol[_Faults]):
    """What answers the calls."""

    faults: _Faults

    @property
    def struck(self) -> int: ...

    def set_faults(self, faults: _Faults) -> None: ...


class Service(Server, Generic[_Faults]):
    """A server of calls; `log` has all of them. A subclass sets `_answers`, which answers them."""

    _answers: _Faulty[_Faults]

    def __init__(self) -> None:
        self.log = CallLog()

    @property
    def faults(self) -> _Faults:
        """What goes wrong now."""
        return self._answers.faults

    @faults.setter
    def faults(self, faults: _Faults) -> None:
        self._answers.set_faults(faults)

    @property
    def struck(self) -> int:
        """How often something has gone wrong since `faults` were set."""
        return self._answers.struck
