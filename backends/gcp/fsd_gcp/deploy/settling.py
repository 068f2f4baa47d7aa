"""What was just made is not in force everywhere at once: accounts and roles take a minute and more."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from google.api_core import exceptions

from fsd_gcp.calls.errors import is_disabled
from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.errors import FsdError
from fsdcore.record.observer import SILENT, Observer, notice

_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_TASK = "waiting for what was just made"
# What errors of REST begin with, which names what was asked for.
_ASKED = re.compile(r"[A-Z]+ https?://\S+: ")
# What a build says for want of a role; each service that it uses has words of its own.
_DENIED = re.compile(r"permission|denied|does not have", re.IGNORECASE)

_Found = TypeVar("_Found")
Passes: TypeAlias = Callable[[exceptions.GoogleAPICallError, bool], bool]


class Settling:
    """Repeats what fails because an account of the deployment is not known yet, or may not do yet what it will.

    `accounts` are those of the deployment: of any other account that there is not, whoever named it has made a
    mistake. Only for a while after `began` a refusal may be because something is new.
    """

    def __init__(self, *accounts: str, observer: Observer = SILENT, clock: Clock = SYSTEM_CLOCK) -> None:
        self._accounts, self._observer, self._clock = accounts, observer, clock
        self._until: Deadline | None = None
        self._stopped = threading.Event()

    def began(self) -> None:
        """An account was made, or given a role, just now."""
        self._until = Deadline.after(_SECONDS, self._clock)

    def stop(self) -> None:
        """Nothing is repeated any more: something has failed for good."""
        self._stopped.set()

    def repeat(self, call: Callable[[], _Found], passes: Passes) -> _Found:
        """What `call` returns; it is made again after errors that pass, if it was begun within two minutes.

        `passes` is also told whether something was new when the call was begun, which may itself take minutes.
        """
        deadline, pause = Deadline.after(_SECONDS, self._clock), _FIRST_PAUSE
        while True:
            last, new = deadline.passed(), self._is_new()
            try:
                found = call()
            except exceptions.GoogleAPICallError as error:
                if last or self._stopped.is_set() or not passes(error, new):
                    raise
            else:
                self._end(pause)
                return found
            self._observer.progress(_TASK, 0, 1)
            self._clock.sleep(min(pause, deadline.remaining()))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _end(self, pause: float) -> None:
        if pause > _FIRST_PAUSE:
            self._observer.progress(_TASK, 1, 1)

    def _is_new(self) -> bool:
        return self._until is not None and not self._until.passed()

    def is_unknown(self, error: exceptions.GoogleAPICallError, new: bool) -> bool:
        """Whether it says that an account of ours does not exist, or, of what is `new`, may not exist."""
        said = _ASKED.sub("", error.message or "", count=1)
        doubt = "may not exist" if isinstance(error, exceptions.Forbidden) else "does not exist"
        return doubt in said and (new or doubt == "does not exist") and self._names_ours(said)

    def _names_ours(self, said: str) -> bool:
        # Not within the address of another.
        return any(re.search(rf"(?<![\w.-]){re.escape(email)}(?![\w-])", said) for email in self._accounts)


def is_of_new_account(error: exceptions.GoogleAPICallError, new: bool) -> bool:
    """Whether it is what is said of a new account's own policy, which does not name it."""
    return new and isinstance(error, exceptions.Forbidden) and "may not exist" in error.message


def is_of_new_builder(error: exceptions.GoogleAPICallError, new: bool) -> bool:
    """Whether a build may have failed since its account has just been given its roles."""
    return new and not is_disabled(error) and _DENIED.search(error.message or "") is not None


class Notes:
    """Lines for the user, told at once: what they are about may be why the deploy does not come to its end."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.told: list[str] = []

    def add(self, *lines: str) -> None:
        """Tell what is not empty."""
        for line in filter(None, lines):
            notice(self._observer, line)
            self.told.append(line)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A failure of the block says them, too."""
        try:
            yield
        except FsdError as error:
            error.message = "; ".join([error.message, *self.told])
            raise
