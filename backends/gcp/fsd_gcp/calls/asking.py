"""One request to the function of a deployment, and what came back: from a worker, or from something in its place."""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from fsd_gcp.calls.connections import connect, wait_up_to
from fsd_gcp.calls.errors import error_passes, shown, status_passes, words
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import AccessDeniedError, ComputeError, CredentialsError, DeploymentMissingError, FsdError
from fsdcore.loopback import absent, is_loopback, is_refused

# The header of every answer that a worker gave. What lacks it came from the service, or from what is before it.
OWN = "X-Fsd-Worker"
# The header of an answer that says: the worker failed, and has told so itself.
TOLD = "X-Fsd-Told"
# The header of a request to try what workers do, in place of an invocation: the number of the place to begin with.
TRIAL = "X-Fsd-Trial"
# The header of a request that says when it was sent, in seconds of the wall clock.
SENT = "X-Fsd-Sent"
# No answer of a worker has more.
_LONGEST_BYTES = 8 << 20
_DENIED = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)


class NoWayError(ComputeError):
    """The function, or what gives the token for it, cannot be asked from here, and asking again is of no use."""


class Answer(NamedTuple):
    """What came back for a request that was sent; `status` 0 if the connection broke.

    `own`: whether a worker gave it; `told`: whether it is of one that failed and has told so itself.
    """

    status: int
    text: str
    own: bool
    told: bool
    content: bytes = b""

    @property
    def is_alien(self) -> bool:
        """Whether it should be a worker's and is not: a page of a portal or proxy, or an address to go to."""
        return not self.own and 0 < self.status < HTTPStatus.BAD_REQUEST

    @property
    def may_pass(self) -> bool:
        """Whether there may be a worker later: the service had none, lost the request, or did not see it."""
        return not self.own and (self.status == 0 or self.is_alien or status_passes(self.status))

    @property
    def is_denied(self) -> bool:
        """Whether it may be of roles, or an address, that are not known everywhere yet."""
        return not self.own and self.status in _DENIED

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.text}" if self.status else f"the connection broke: {self.text}"


class Lack(msgspec.Struct, frozen=True):
    """What a worker could not do: `role`, where that is what is missing, `on` what, and what the service said."""

    role: str
    on: str
    reason: str

    def __str__(self) -> str:
        return f"{self.role} on {self.on}" if self.role else f"{self.on}: {self.reason}"


class Trial(msgspec.Struct, frozen=True):
    """What was lacking, and how many of the deployment's places, from the first, have been tried by now."""

    lacks: list[Lack]
    tried: int


def may_pass(error: FsdError) -> bool:
    """Whether a request that could not be sent for this reason may be sent in a while."""
    return isinstance(error, ComputeError) and not isinstance(error, NoWayError)


def is_denied(error: FsdError) -> bool:
    """Whether it could not for want of what may not be in force yet, such as a role."""
    denied = isinstance(error, AccessDeniedError | DeploymentMissingError)
    return denied and not isinstance(error, CredentialsError)


def ask(url: str, headers: Mapping[str, str], seconds: float) -> Answer:
    """Send an empty request and wait for the answer, which may take `seconds`. Errors as of `send`."""
    deadline = Deadline.after(seconds, SYSTEM_CLOCK)
    connection = send(urllib.parse.urlsplit(url), headers, b"", seconds)
    wait_up_to(connection, max(deadline.remaining(), 0.001))
    return read(connection)


def send(
    url: urllib.parse.SplitResult, headers: Mapping[str, str], body: bytes, seconds: float
) -> http.client.HTTPConnection:
    """Send a request, whole; the answer is left for later. No step of it may take longer than `seconds`.

    `ComputeError` if it could not be sent, `NoWayError` if it never can, `ConfigError` as of `connect`.
    """
    connection = connect(url, seconds)
    timed = {**headers, SENT: f"{SYSTEM_CLOCK.wall():.3f}"}
    try:
        connection.request("POST", url.path or "/", body, timed)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise _unsent(url, error) from error
    return connection


def _unsent(url: urllib.parse.SplitResult, error: Exception) -> ComputeError:
    if is_loopback(url.geturl()) and is_refused(error):
        return NoWayError(absent(url.geturl(), "gcp"))
    text = f"the function at {url.netloc} cannot be reached: {shown(str(error) or type(error).__name__)}"
    if error_passes(error):
        return ComputeError(text)
    return NoWayError(f"{text}; are HTTPS_PROXY and REQUESTS_CA_BUNDLE as your network wants them?")


def read(connection: http.client.HTTPConnection) -> Answer:
    """Wait for the answer, and close the connection."""
    try:
        response = connection.getresponse()
        content = response.read(_LONGEST_BYTES)
        own, told = (response.getheader(name) is not None for name in (OWN, TOLD))
        return Answer(response.status, _text(response.getheader("Location"), content), own or told, told, content)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, shown(f"{type(error).__name__}: {error}"), own=False, told=False)
    finally:
        connection.close()


def _text(elsewhere: str | None, content: bytes) -> str:
    """The words of an answer, with the address that it leads to if it does."""
    to = shown(f"to {elsewhere}") if elsewhere else ""
    return ", ".join(part for part in (to, words(content)) if part)
