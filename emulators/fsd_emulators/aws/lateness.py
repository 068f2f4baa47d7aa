"""What in AWS is true only after a while, and how long that takes here: nothing, unless a test says otherwise.

ministack's Python runs this file by its path, so nothing but the standard library is imported.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

NAME_TAKEN = (
    "You must wait 60 seconds after deleting a queue before you can create another with the same name. "
    "(Service: Sqs, Status Code: 400, Error Code: AWS.SimpleQueueService.QueueDeletedRecently)"
)


class Lateness(NamedTuple):
    """Seconds for which something is not so yet.

    - `stacks`: what CloudFormation tells of a stack is of before its latest operation
    - `filters`: a new subscription gets every message of its topic
    - `names`: a queue cannot be made where one of its name was removed
    - `roles`: a new role has no rights
    """

    stacks: float = 0.0
    filters: float = 0.0
    names: float = 0.0
    roles: float = 0.0


class Late:
    """What happened a moment ago; how long a moment is stands in a file, as another process writes it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._happened: dict[tuple[str, str], float] = {}

    def note(self, what: str, name: str) -> None:
        """Something, such as ``filters``, has begun for a resource."""
        self._happened[what, name] = time.monotonic()

    def still(self, what: str, name: str) -> bool:
        """Whether that was less than the time ago that it takes."""
        happened = self._happened.get((what, name))
        return happened is not None and time.monotonic() - happened < getattr(self._lateness(), what)

    def _lateness(self) -> Lateness:
        try:
            return Lateness(**json.loads(self._file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Lateness()
