"""What may go wrong: the faults that wrapped backends and local services make, in the same words.

A fault is plain data: what happens, to which calls, how often. `Faults` says which of them a call meets. A server says
which calls it knows by which names, and which faults it can make.
"""

from __future__ import annotations

import random
import threading
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias, TypeVar

import msgspec

from fsdcore.errors import ConfigError

Caller: TypeAlias = int | str


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Which calls go wrong, and how often; the subclass says what happens.

    - `calls`: the names of calls, with spaces between them; ``*`` stands for any text
    - `about`: a text in what the call is about: a key, a queue, the event that starts a worker
    - `by`: who makes the call: the rank of a worker, or on local AWS ``worker`` or ``client``; None for everybody
    - `skip`: how many such calls pass first; `times`: how many then go wrong at the most, 0 for all
    - `share`: from 0 to 1, how many of those it is, drawn from `seed`; a repeated call is drawn anew

    What happens to messages is counted and drawn for each message, not for each call.
    """

    calls: str = "*"
    about: str = ""
    by: Caller | None = None
    skip: int = 0
    times: int = 0
    share: float = 1.0
    seed: int = 0

    def means(self, call: str, about: str = "", by: Caller | None = None) -> bool:
        """Whether a call, or a message of it, is one of those that may go wrong."""
        named = any(fnmatchcase(call, pattern) for pattern in self.calls.split())
        return named and self.about in about and self.by in (None, by)


class Refuse(Fault, frozen=True):
    """The call has no effect and ends with `error`, a word of the service, and `status` of HTTP; empty: as usual."""

    error: str = ""
    status: int = 0


class Disconnect(Fault, frozen=True):
    """The connection breaks: `when` is ``before`` any effect, ``after`` it, or ``within`` the answer.

    After the effect it is silent for `seconds` first.
    """

    when: Literal["before", "after", "within"] = "before"
    seconds: float = 0.0


class Delay(Fault, frozen=True):
    """The call or message comes later by `seconds`, or by so many further `receives`."""

    seconds: float = 0.0
    receives: int = 0


class Duplicate(Fault, frozen=True):
    """The call or message has its effect twice."""


class Drop(Fault, frozen=True):
    """The message or acknowledgement is lost without a word, so that the message comes again."""


class Reorder(Fault, frozen=True):
    """The messages of one receive come in an order drawn from `seed`, and the last waits for the next receive."""


class InPart(Fault, frozen=True):
    """Only some messages of the call are taken or brought; those not taken are refused with `error`.

    `blames_sender`: that is said to be the sender's fault.
    """

    error: str = ""
    blames_sender: bool = False


class Crash(Fault, frozen=True):
    """The worker that makes the call, or that is started by it, ends without a word, `seconds` later if any."""

    seconds: float = 0.0


AnyFault: TypeAlias = Refuse | Disconnect | Delay | Duplicate | Drop | Reorder | InPart | Crash
_Kind = TypeVar("_Kind", bound=Fault)


class Occurrences:
    """Counts what a fault may happen to, and decides each time. May be used from several threads.

    What differs in `salt` is drawn independently though the seed is the same.
    """

    def __init__(self, fault: Fault, salt: object = "") -> None:
        self.fault = fault
        self.made = self._seen = 0
        self._random = random.Random(f"{fault.seed} {salt}")
        self._lock = threading.Lock()

    def due(self) -> bool:
        """Whether the next one goes wrong."""
        fault = self.fault
        with self._lock:
            self._seen += 1
            open_now = self._seen > fault.skip and (fault.times == 0 or self.made < fault.times)
            happens = open_now and self._random.random() < fault.share
            self.made += happens
        return happens


class Faults:
    """The faults that stand now, of the `kinds` that their owner can make."""

    def __init__(self, *kinds: type[Fault]) -> None:
        self._kinds = kinds
        self._standing: list[Occurrences] = []

    def set(self, *faults: Fault) -> None:
        """Replace all; none ends them. `ConfigError` for one that cannot be made here."""
        for fault in faults:
            if not isinstance(fault, self._kinds):
                known = ", ".join(kind.__name__ for kind in self._kinds)
                raise ConfigError(f"the fault {type(fault).__name__} cannot be made here; there are: {known}")
        self._standing = [Occurrences(fault, place) for place, fault in enumerate(faults)]

    @property
    def made(self) -> int:
        """How often something went wrong since they were set."""
        return sum(standing.made for standing in self._standing)

    def meet(self, kind: type[_Kind], call: str, about: str = "", by: Caller | None = None) -> _Kind | None:
        """The first of a kind that this call meets, counted; None if it is to go well."""
        for standing in self._standing:
            fault = standing.fault
            if isinstance(fault, kind) and fault.means(call, about, by) and standing.due():
                return fault
        return None
