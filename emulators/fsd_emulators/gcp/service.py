"""What the local services have in common: a log of what they were asked, and faults that may change at any time."""

from __future__ import annotations

from fsd_emulators.gcp.calls import CallLog
from fsd_emulators.server import Server
from fsdcore.faults import Fault, Faults


class Service(Server):
    """A server of calls: `log` has all of them, and `faults` makes some go wrong, named as they are in the log."""

    def __init__(self, *faults: type[Fault]) -> None:
        self.log, self.faults = CallLog(), Faults(*faults)
