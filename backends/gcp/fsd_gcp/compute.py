"""Workers as instances of a Cloud Function (2nd generation).

Such a function has no asynchronous call. A worker is started by an authenticated HTTP request whose body has been
sent; the connection is then held, by a thread that only waits, until the worker ends:

- A function has its processor only while a request to it is open, so the request must stay open as long as the worker
  runs. Whether it does after its caller has gone is nowhere promised. Therefore a worker stays until those that it has
  started have ended (`join`), which costs little: the end of a run is a barrier for all.
- Delivery by Pub/Sub push or Eventarc would need no held connection, but the service widens its window of open
  requests only as they are answered within about a second, and a worker answers when it ends: the workers of one run,
  which wait for each other, would not all be started.

What the wait brings is of use: a worker that ends without a word is known at once, by the answer to its request.
"""

from __future__ import annotations

import http.client
import threading
import urllib.parse
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeAlias

from fsd_gcp.calls.asking import Answer, is_denied, may_pass, read, send
from fsd_gcp.calls.connections import wait_up_to
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.compute import Compute, Exit, Exits, Invocation
from fsdcore.contracts.limits import ComputeCapabilities
from fsdcore.errors import AccessDeniedError, ComputeError, CredentialsError, DeploymentMissingError, FsdError

if TYPE_CHECKING:
    from fsd_gcp.calls.identity import IdentityTokens

# What it may take to send a request, its token included.
_SEND_SECONDS = 30.0
# What an answer may take beyond the life of the function, and beyond the run.
_MARGIN_SECONDS, _AFTER_SECONDS = 30.0, 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
# With less time than this nothing is tried again: it would end for want of time, and hide why it was tried.
_LEAST_SECONDS = 0.5
# How often the store is asked whether the run of a worker whose connection broke is over.
_LOOK_SECONDS = 2.0
# In what a perimeter or a policy of an organization says.
_RULES = ("vpcServiceControls", "organization's policy", "organization policy")

# What came of one try: an answer, or why there was none to wait for.
_Found: TypeAlias = Answer | FsdError


class _Start:
    """One worker that is to be started, and how long that is tried.

    What may pass is borne as long as a wait for a message may last, counted from when it began; a refusal for the
    seconds in which roles come into force, counted from the first. `sent`: whether a worker may have been asked.
    """

    def __init__(self, invocation: Invocation, settling: float) -> None:
        self.invocation, self.end = invocation, Deadline.after(invocation.run_seconds, SYSTEM_CLOCK)
        self.sent = False
        self._settling = settling
        self._passing: Deadline | None = None
        self._settled: Deadline | None = None
        self._renewed = False

    def now(self, rank: int, until: Deadline | None = None) -> Invocation:
        """The order as it is at this time, to the worker or another; what is left of the run ends at `until`."""
        return self.invocation.for_rank(rank, (until or self.end).remaining())

    def until(self, found: _Found) -> Deadline:
        """Until when it is tried again after this; at once over if it is not."""
        if _is_unknown(found) and not self._renewed:
            # Once, with a new token.
            self._renewed = True
            return self.end
        if found.is_denied if isinstance(found, Answer) else is_denied(found):
            self._passing = None
            self._settled = self._settled or self.end.sooner(self._settling)
            return self._settled
        if found.may_pass if isinstance(found, Answer) else may_pass(found):
            self._passing = self._passing or self.end.sooner(self.invocation.settings.deadline_seconds)
            return self._passing
        return Deadline.after(0.0, SYSTEM_CLOCK)


class GcpCompute(Compute):
    """Starts workers at `url`, which live `seconds` at most.

    `lost` is told of each worker that could not be started or ended without a word, and is asked nothing; `claimed`
    says whether a worker has begun, in no more than the seconds that are left of the run by what it is given. While
    the service has no instance to give, or cannot be reached, starting is repeated as long as a wait for a message may
    last, and for `settling_seconds` if it says that there is no permission, the first try as any other.
    """

    def __init__(
        self,
        url: str,
        tokens: IdentityTokens,
        capabilities: ComputeCapabilities,
        claimed: Callable[[Invocation], bool],
        lost: Callable[[Invocation, str], None] | None = None,
        settling_seconds: float = 0.0,
    ) -> None:
        self._settling = settling_seconds
        self._url, self._tokens, self._capabilities = urllib.parse.urlsplit(url), tokens, capabilities
        self._claimed, self._lost = claimed, lost
        self._lock = threading.Lock()
        self._watchers: list[threading.Thread] = []
        self._exits = Exits()
        self._refused: dict[str, FsdError] = {}
        self._cancelled: set[str] = set()

    @property
    def capabilities(self) -> ComputeCapabilities:
        """As deployed. Exits and failed starts are reported, as a request stays open while its worker runs."""
        return self._capabilities

    def invoke(self, invocation: Invocation) -> None:
        """As of the base; what may pass is tried again later, and told by `exits` if it lasts."""
        start = _Start(invocation, self._settling)
        seconds = min(invocation.settings.deadline_seconds, invocation.run_seconds)
        found = self._try(start, invocation, Deadline.after(max(_LEAST_SECONDS, seconds), SYSTEM_CLOCK))
        if isinstance(found, FsdError) and start.until(found).passed():
            raise found.at(run=invocation.run, rank=invocation.rank)
        self._watch_aside(start, found)

    def _watch_aside(self, start: _Start, found: http.client.HTTPConnection | FsdError) -> None:
        name = f"fsd-start-{start.invocation.rank}"
        watcher = threading.Thread(target=self._watch, args=(start, found), name=name, daemon=True)
        with self._lock:
            self._watchers = [other for other in self._watchers if other.is_alive() or other.ident is None]
            self._watchers.append(watcher)
        watcher.start()

    def _try(self, start: _Start, order: Invocation, until: Deadline) -> http.client.HTTPConnection | FsdError:
        """Send the request, whole; the answer is left for later."""
        deadline = until.sooner(_SEND_SECONDS)
        try:
            token = self._tokens.token(deadline.remaining())
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection = send(self._url, headers, order.to_json(), max(deadline.remaining(), 0.001))
        except FsdError as error:
            return error
        start.sent = True
        life = (self._capabilities.max_seconds or 0.0) + _MARGIN_SECONDS
        wait_up_to(connection, min(life, start.end.remaining() + _AFTER_SECONDS))
        return connection

    def _watch(self, start: _Start, tried: http.client.HTTPConnection | FsdError) -> None:
        """Wait for the answer, try again as long as that may help, and note how it ended."""
        pause, found = _FIRST_PAUSE, _outcome(tried)
        while (left := (until := start.until(found)).remaining() - _LEAST_SECONDS) > 0:
            SYSTEM_CLOCK.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
            # After the pause: the worker may have begun in it, or the run ended.
            if not self._is_wanted(start, found, until):
                break
            if _is_unknown(found):
                self._tokens.forget()
            found = _outcome(self._try(start, start.now(start.invocation.rank), until))
        self._note(start, found)

    def _is_wanted(self, start: _Start, found: _Found, until: Deadline) -> bool:
        """Whether no worker has begun for all that is known, in a run that goes on."""
        if start.invocation.run in self._cancelled:
            return False
        refused = isinstance(found, Answer) and found.status == HTTPStatus.TOO_MANY_REQUESTS
        rank = start.invocation.rank
        if start.sent and not refused and self._has_begun(start.now(rank, until)):
            return False
        # What rank 0, the first to begin, left in the store goes with the run.
        return rank == 0 or self._has_begun(start.now(0, until))

    def _has_begun(self, invocation: Invocation) -> bool:
        try:
            return self._claimed(invocation)
        except FsdError:
            return True

    def _note(self, start: _Start, found: _Found) -> None:
        """Keep how the worker ended, for `exits`, and tell of one that cannot tell of itself."""
        invocation = start.invocation
        begun = start.sent and _is_cut_off(found) and self._has_begun(start.now(invocation.rank))
        if begun:
            self._outlast(start)
        error = None if begun or _is_well(found) else _said(found)
        refused = None if error is None else _refusal(found, self._url.netloc)
        if refused is not None:
            with self._lock:
                self._refused[invocation.run] = refused.at(run=invocation.run, rank=invocation.rank)
        self._exits.add(invocation.run, _exits(invocation, found, error))
        if error is not None:
            self._tell(start, found, error if refused is None else refused.message)

    def _tell(self, start: _Start, found: _Found, why: str) -> None:
        """Say that a worker is lost, unless it has said so itself or nobody is to be told."""
        if self._lost is not None and not (isinstance(found, Answer) and found.told):
            self._lost(start.now(start.invocation.rank), why)

    def _outlast(self, start: _Start) -> None:
        """Wait for the end of a worker whose connection broke: that of its run, since more is not to be seen."""
        while not start.end.passed() and self._has_begun(start.now(0)):
            SYSTEM_CLOCK.sleep(min(_LOOK_SECONDS, start.end.remaining()))

    def exits(self, run: str) -> Sequence[Exit]:
        """Of those that were started from here. Raises what the service refused a start with."""
        with self._lock:
            if run in self._refused:
                raise self._refused[run]
        return self._exits.of(run)

    def cancel(self, run: str) -> None:
        """Starts of the run that are under way are not tried again."""
        self._cancelled.add(run)

    def join(self, deadline: Deadline) -> None:
        """Wait for the workers that were started from here to end."""
        for watcher in list(self._watchers):
            watcher.join(deadline.remaining())


def _outcome(tried: http.client.HTTPConnection | FsdError) -> _Found:
    return tried if isinstance(tried, FsdError) else read(tried)


def _is_unknown(found: _Found) -> bool:
    """Whether the service does not know the identity, as it may not if the account was made anew since."""
    return isinstance(found, Answer) and not found.own and found.status == HTTPStatus.UNAUTHORIZED


def _is_well(found: _Found) -> bool:
    return isinstance(found, Answer) and found.own and found.status == HTTPStatus.OK


def _is_cut_off(found: _Found) -> bool:
    """Whether a worker may go on, of which no more is heard."""
    return isinstance(found, FsdError) or found.status == 0 or found.is_alien


def _said(found: _Found) -> str:
    return found.message if isinstance(found, FsdError) else str(found)


def _exits(invocation: Invocation, found: _Found, error: str | None) -> list[Exit]:
    """Of the worker that answered; if it is rank 0, then of all, since each stays until those below it have ended."""
    whole = invocation.rank == 0 and isinstance(found, Answer) and (found.told or _is_well(found))
    others = range(1, invocation.settings.workers) if whole else ()
    return [Exit(invocation.rank, error), *(Exit(rank, None) for rank in others)]


def _refusal(found: _Found, host: str) -> FsdError | None:
    """The error for what came from the service, not from a worker; None for what only says that it cannot now."""
    if isinstance(found, FsdError):
        return found
    if found.own or (found.may_pass and not found.is_alien):
        return None
    if found.status == HTTPStatus.UNAUTHORIZED:
        return CredentialsError(
            f"the function at {host} does not take the identity: {found.text}; is the clock of this machine right? "
            "If so, run: gcloud auth application-default login"
        )
    if found.status == HTTPStatus.FORBIDDEN:
        return AccessDeniedError(f"no permission to call the function at {host}{_remedy(found.text)}")
    if found.status == HTTPStatus.NOT_FOUND:
        return DeploymentMissingError(
            f"there is no function at {host}, or its ingress settings hide it: {found.text}; run: fsd deploy gcp"
        )
    return ComputeError(
        f"the function at {host} gave an answer that no worker gives, {found}; is there a proxy or a sign-in page on "
        "the way to it?"
    )


def _remedy(text: str) -> str:
    """Of a role that is missing, where nothing else is named."""
    said = f": {text}" if text else ""
    if any(rule in text for rule in _RULES):
        return f"{said}; who administers that must allow it"
    return f"{said}; it takes the role roles/run.invoker"
