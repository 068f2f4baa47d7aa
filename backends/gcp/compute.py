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
from typing import NamedTuple

from backends.gcp.connections import connect, wait_up_to
from backends.gcp.identity import IdentityTokens
from fsdcore.capabilities import ComputeCapabilities
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.compute import Compute, Exit, Exits, Invocation
from fsdcore.errors import AccessDeniedError, ComputeError, CredentialsError, DeploymentMissingError, FsdError
from fsdcore.loopback import absent, is_loopback, is_refused

__all__ = ["SENT", "TOLD", "TRIAL", "GcpCompute"]

# The header of an answer that says: the worker failed, and has told so itself.
TOLD = "X-Fsd-Told"
# The header of a request to try what workers do, in place of an invocation.
TRIAL = "X-Fsd-Trial"
# The header of a request that says when it was sent, in seconds of the wall clock.
SENT = "X-Fsd-Sent"
_CONNECT_SECONDS = 30.0
# What an answer may take beyond the life of the function.
_MARGIN_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 10.0
_LONGEST_TEXT = 200
# The first status that says that the fault is the service's.
_FAULTS = 500
# How often the store is asked whether the run of a worker whose connection broke is over.
_LOOK_SECONDS = 2.0


class Answer(NamedTuple):
    """What came back for a request; `status` 0 if the connection broke."""

    status: int
    text: str
    told: bool

    @property
    def may_pass(self) -> bool:
        """Whether the service, not a worker, says that it cannot now: it had no instance, or lost the request."""
        return not self.told and (self.status in (0, http.HTTPStatus.TOO_MANY_REQUESTS) or self.status >= _FAULTS)

    @property
    def is_denied(self) -> bool:
        return self.status == http.HTTPStatus.FORBIDDEN and not self.told

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.text}" if self.status else f"the connection broke: {self.text}"


class GcpCompute(Compute):
    """Starts workers at `url`, which live `seconds` at most.

    `lost` is told of each worker that could not be started or ended without a word, and is asked nothing; `claimed`
    says whether a worker has begun. While the service has no instance to give, starting is repeated as long as a wait
    for a message may last, and for `settling_seconds` if it says that there is no permission.
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

    @property
    def capabilities(self) -> ComputeCapabilities:
        return self._capabilities

    def invoke(self, invocation: Invocation) -> None:
        connection = self._send(invocation)
        name = f"fsd-start-{invocation.rank}"
        watcher = threading.Thread(target=self._watch, args=(invocation, connection), name=name, daemon=True)
        with self._lock:
            self._watchers = [other for other in self._watchers if other.is_alive() or other.ident is None]
            self._watchers.append(watcher)
        watcher.start()

    def _send(self, invocation: Invocation) -> http.client.HTTPConnection:
        """Send the request, whole; the answer is left for later."""
        headers = {
            "Authorization": f"Bearer {self._tokens.token()}",
            "Content-Type": "application/json",
            SENT: f"{SYSTEM_CLOCK.wall():.3f}",
        }
        connection = connect(self._url, _CONNECT_SECONDS)
        try:
            connection.request("POST", self._url.path or "/", invocation.to_json(), headers)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ComputeError(_unreached(self._url, error), run=invocation.run) from error
        wait_up_to(connection, (self._capabilities.max_seconds or 0.0) + _MARGIN_SECONDS)
        return connection

    def _watch(self, invocation: Invocation, connection: http.client.HTTPConnection) -> None:
        end = Deadline.after(invocation.run_seconds)
        # As long as peers would wait for a message; roles take longer.
        passing = end.sooner(invocation.deadline_seconds)
        settled = end.sooner(self._settling)
        pause, answer = _FIRST_PAUSE, _answer(connection)
        while (answer.may_pass and not passing.passed()) or (answer.is_denied and not settled.passed()):
            SYSTEM_CLOCK.sleep(min(pause, end.remaining()))
            pause = min(2 * pause, _LONGEST_PAUSE)
            # After the pause: the worker may have begun in it, or the run ended.
            if not self._is_wanted(invocation, answer):
                break
            try:
                answer = _answer(self._send(invocation))
            except ComputeError as error:
                answer = Answer(0, str(error), told=False)
            except FsdError as error:
                self._refuse(invocation, error)
                return
        self._note(invocation, answer, end)

    def _refuse(self, invocation: Invocation, error: FsdError) -> None:
        """Have `exits` raise what the start was refused with, and tell for the worker that will not begin."""
        with self._lock:
            self._refused[invocation.run] = error.at(run=invocation.run, rank=invocation.rank)
        if self._lost is not None:
            self._lost(invocation, str(error))

    def _is_wanted(self, invocation: Invocation, answer: Answer) -> bool:
        """Whether no worker has begun for all that is known, in a run that goes on."""
        if answer.status != http.HTTPStatus.TOO_MANY_REQUESTS and self._has_begun(invocation):
            return False
        # What rank 0, the first to begin, left in the store goes with the run.
        return invocation.rank == 0 or self._has_begun(invocation.for_rank(0))

    def _has_begun(self, invocation: Invocation) -> bool:
        try:
            return self._claimed(invocation)
        except FsdError:
            return True

    def _note(self, invocation: Invocation, answer: Answer, end: Deadline) -> None:
        begun = answer.status == 0 and self._has_begun(invocation)
        if begun:
            self._outlast(invocation, end)
        error = None if begun or answer.status == http.HTTPStatus.OK else str(answer)
        with self._lock:
            refused = _refusal(answer, self._url.netloc)
            if refused is not None:
                self._refused[invocation.run] = refused.at(run=invocation.run, rank=invocation.rank)
        self._exits.add(invocation.run, _exits(invocation, answer, error))
        if error is not None and not answer.told and self._lost is not None:
            self._lost(invocation, str(refused or error))

    def _outlast(self, invocation: Invocation, end: Deadline) -> None:
        """Wait for the end of a worker whose connection broke: that of its run, since more is not to be seen."""
        while not end.passed() and self._has_begun(invocation.for_rank(0)):
            SYSTEM_CLOCK.sleep(min(_LOOK_SECONDS, end.remaining()))

    def exits(self, run: str) -> Sequence[Exit]:
        """Of those that were started from here. Raises what the service refused a start with."""
        with self._lock:
            if run in self._refused:
                raise self._refused[run]
        return self._exits.of(run)

    def join(self, deadline: Deadline) -> None:
        """Wait for the workers that were started from here to end."""
        for watcher in list(self._watchers):
            watcher.join(deadline.remaining())


def _unreached(url: urllib.parse.SplitResult, error: Exception) -> str:
    if is_loopback(url.geturl()) and is_refused(error):
        return absent(url.geturl(), "gcp")
    return f"the function at {url.netloc} cannot be reached: {error}"


def _answer(connection: http.client.HTTPConnection) -> Answer:
    try:
        response = connection.getresponse()
        text = " ".join(response.read().decode(errors="replace").split())[:_LONGEST_TEXT]
        return Answer(response.status, text, response.getheader(TOLD) is not None)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, f"{type(error).__name__}: {error}", told=False)
    finally:
        connection.close()


def _exits(invocation: Invocation, answer: Answer, error: str | None) -> list[Exit]:
    """Of the worker that answered; if it is rank 0, then of all, since each stays until those below it have ended."""
    whole = invocation.rank == 0 and (answer.status == http.HTTPStatus.OK or answer.told)
    others = range(1, invocation.workers) if whole else ()
    return [Exit(invocation.rank, error), *(Exit(rank, None) for rank in others)]


def _refusal(answer: Answer, host: str) -> FsdError | None:
    """The error for an answer that came from the service, not from a worker."""
    if answer.status == http.HTTPStatus.UNAUTHORIZED:
        return CredentialsError(f"the function at {host} does not take the identity: {answer.text}")
    if answer.status == http.HTTPStatus.FORBIDDEN:
        return AccessDeniedError(f"no permission to call the function at {host}; it takes the role roles/run.invoker")
    if answer.status == http.HTTPStatus.NOT_FOUND:
        return DeploymentMissingError(f"there is no function at {host}; run: fsd deploy gcp")
    return None
