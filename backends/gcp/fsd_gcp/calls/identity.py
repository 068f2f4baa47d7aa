"""Identity tokens: who starts a worker shows one to the function."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from google.api_core import exceptions
from google.auth import compute_engine, iam, impersonated_credentials
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from fsd_gcp.calls.asking import NoWayError
from fsd_gcp.calls.errors import error_passes, is_page, shown, status_passes, translation, words
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.decoding import from_json
from fsdcore.errors import (
    AccessDeniedError,
    ComputeError,
    ConfigError,
    DeploymentMissingError,
    FsdError,
    WireError,
)

_LOCAL = "local"
_BORROWING = "roles/iam.serviceAccountOpenIdTokenCreator"
_WHAT = "asking for an identity token"
# What one request for a token may take, and all that one token needs, unless less time is left.
_ATTEMPT, _LONGEST = 15.0, 30.0
# A token is not shown any more when it has so few seconds left.
_RENEWED = 225.0
_TOKEN = re.compile(r"[\w-]+\.([\w-]+)\.[\w-]*", re.ASCII)
# What IAM says where it is a role that is missing, and not a rule of an organization that forbids.
_ROLE = re.compile(r"getOpenIdToken|IAM_PERMISSION_DENIED")


class ApiDisabledError(AccessDeniedError, ConfigError):
    """The API that lends identities is not enabled, or has been for so short a time that not all know it."""


class _Claims(msgspec.Struct):
    """What a token says of itself: its end, in seconds of the wall clock."""

    exp: float


class _Lent(msgspec.Struct):
    """What IAM answers to who may borrow an identity."""

    token: str


class _Kept(NamedTuple):
    """A token, and until when it is to be shown."""

    token: str
    until: float


class _Loan(NamedTuple):
    """Whose identity is borrowed by whom; `ours` if it is that of the deployment's service account."""

    lender: str
    borrower: Credentials
    delegates: list[str]
    ours: bool


class _LaterError(Exception):
    """What may pass. No kind of error that Google's library tries again after, since that knows no deadline."""


class IdentityTokens:
    """Tokens for one function, by whose `credentials` the calls of services are made with.

    A function or another machine of Google's has an identity of its own from its metadata server, a key of a service
    account one from that key. A person, or a workload of elsewhere, has none that a function takes: such credentials
    borrow that of the deployment's service account, and so does a machine whose server has none, as Cloud Shell's.
    """

    def __init__(
        self,
        audience: str,
        service_account: str,
        credentials: Callable[[], Credentials],
        in_worker: bool = False,
    ) -> None:
        """`credentials` is called when a token is first asked for. A worker has an identity, and borrows none."""
        self._audience, self._service_account, self._source = audience, service_account, credentials
        self._in_worker = in_worker
        self._lock = threading.Lock()
        self._kept: _Kept | None = None

    def token(self, seconds: float = _LONGEST) -> str:
        """A token that is good for some minutes at least, in `seconds` if there is to be one.

        `ComputeError` if there is none now, `NoWayError` if there is no way to who gives them. `AccessDeniedError` if
        the identity may not be borrowed, `DeploymentMissingError` if there is none: either may not be in force yet.
        `CredentialsError` if the credentials are not taken; of a worker's that is no more than a `ComputeError`.
        """
        try:
            with self._held(seconds):
                return self._fresh(Deadline.after(min(seconds, _LONGEST), SYSTEM_CLOCK))
        except (AccessDeniedError, DeploymentMissingError) as error:
            if not self._in_worker:
                raise
            # Its machine has an identity, whatever its server says for a moment.
            raise ComputeError(error.message) from error

    def forget(self) -> None:
        """Keep no token: the one that was given last is not taken."""
        self._kept = None

    @contextmanager
    def _held(self, seconds: float) -> Iterator[None]:
        """One thread asks, and the others have what it was given."""
        if not self._lock.acquire(timeout=max(seconds, 0.0)):
            raise ComputeError(f"{_WHAT}: no answer within {seconds:.0f} s")
        try:
            yield
        finally:
            self._lock.release()

    def _fresh(self, deadline: Deadline) -> str:
        source = self._source()
        if isinstance(source, AnonymousCredentials):
            return _LOCAL
        if self._kept is None or SYSTEM_CLOCK.wall() >= self._kept.until:
            request = _Request(deadline)
            with closing(request.session), _told(request):
                token = self._got(source, request)
                self._kept = _Kept(token, _end(token) - _RENEWED)
        return self._kept.token

    def _got(self, source: Credentials, request: _Request) -> str:
        own = self._own(source)
        if own is None:
            return _lent(self._loan(source), self._audience, request)
        try:
            own.refresh(request)
        except RefreshError as error:
            if not _is_machine(source) or request.status < HTTPStatus.BAD_REQUEST:
                raise
            # Any other answer says nothing of whether its server has an identity to give.
            if self._in_worker or request.status != HTTPStatus.NOT_FOUND:
                raise AccessDeniedError(f"this machine's server gives no identity: {request.said}") from error
            return _lent(self._loan(source), self._audience, request)
        return str(own.token)

    def _own(self, source: Credentials) -> Any:
        """Credentials for an identity of its own; None if there is none."""
        if _is_machine(source):
            return compute_engine.IDTokenCredentials(None, self._audience, use_metadata_identity_endpoint=True)
        if isinstance(source, service_account.Credentials):
            return service_account.IDTokenCredentials(
                source.signer, source.service_account_email, source._token_uri, self._audience
            )
        return None

    def _loan(self, source: Credentials) -> _Loan:
        """Who acts for an account has the identity of that."""
        if isinstance(source, impersonated_credentials.Credentials):
            return _Loan(source.signer_email, source._source_credentials, list(source._delegates or ()), ours=False)
        return _Loan(self._service_account, source, [], ours=True)


class _Request:
    """Calls of Google's library, each in what is left until `deadline`, and once.

    `status` and `content` are of the last answer; the status is 0 if there was none.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._request, self._deadline = Request(), deadline
        # Where the library looks for it.
        self.session = self._request.session
        self.status, self.content = 0, b""

    def __call__(
        self, url: str, method: str = "GET", body: Any = None, headers: Any = None, timeout: Any = None, **more: Any
    ) -> Any:
        """As of the library; `_LaterError` for what may pass."""
        self.status, self.content = 0, b""
        seconds = min(self._deadline.remaining(), timeout or _ATTEMPT, _ATTEMPT)
        if seconds <= 0:
            raise _LaterError("no answer in time")
        try:
            answer = self._request(url, method, body, headers, seconds, **more)
        except TransportError as error:
            raise _unreached(error) from error
        except OSError as error:
            # Of certificates that are not where a variable says.
            raise NoWayError(f"{_WHAT}: {shown(str(error))}") from error
        self.status, self.content = int(answer.status), bytes(answer.data)
        if status_passes(self.status):
            raise _LaterError(self.said)
        return answer

    @property
    def said(self) -> str:
        return f"HTTP {self.status}: {words(self.content)}"


def _unreached(error: TransportError) -> Exception:
    """It hides the error of the library below."""
    cause = error.__cause__ or error
    text = f"the service cannot be reached: {shown(str(error))}"
    if error_passes(cause):
        return _LaterError(text)
    return NoWayError(f"{_WHAT}: {text}; are HTTPS_PROXY and REQUESTS_CA_BUNDLE as your network wants them?")


@contextmanager
def _told(request: _Request) -> Iterator[None]:
    """Raise what comes of a token that there is not as errors of the framework."""
    try:
        yield
    except WireError as error:
        raise _no_token(error, request) from error
    except FsdError:
        raise
    except _LaterError as error:
        raise ComputeError(f"{_WHAT}: {error}") from error
    except (GoogleAuthError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Google's library takes what a service answers for what it should be.
        raise _no_token(error, request) from error


def _no_token(error: Exception, request: _Request) -> FsdError:
    if request.status == HTTPStatus.OK:
        told = words(request.content) if is_page(request.content) else f"{len(request.content)} bytes"
        return ComputeError(f"{_WHAT}: what came is no token: HTTP 200: {told}")
    if request.status:
        return translation(exceptions.Unauthorized(request.said), _WHAT, ComputeError)
    # What the library finds before it asks.
    found = error if isinstance(error, GoogleAuthError) else RefreshError(str(error) or type(error).__name__)
    return translation(found, _WHAT, ComputeError)


def _lent(loan: _Loan, audience: str, request: _Request) -> str:
    """A token of the lender."""
    if not loan.borrower.valid:
        loan.borrower.refresh(request)
    headers = {"Content-Type": "application/json"}
    loan.borrower.apply(headers)
    asked = {"audience": audience, "delegates": loan.delegates, "includeEmail": True}
    request(iam._IAM_IDTOKEN_ENDPOINT.format(loan.lender), "POST", msgspec.json.encode(asked), headers)
    if request.status != HTTPStatus.OK:
        raise _refused(loan, request)
    return from_json(request.content, _Lent, WireError).token


def _refused(loan: _Loan, request: _Request) -> Exception:
    """A role that is missing is no fault of the credentials, and logging in anew does not mend it."""
    full = request.content.decode(errors="replace")
    if request.status == HTTPStatus.UNAUTHORIZED:
        return RefreshError(request.said)
    if request.status == HTTPStatus.NOT_FOUND:
        return DeploymentMissingError(
            f"there is no service account {loan.lender}, or it is not known yet, which takes a minute: {request.said}"
            + ("; if it lasts, run: fsd deploy gcp" if loan.ours else "")
        )
    if request.status == HTTPStatus.FORBIDDEN:
        found = translation(exceptions.Forbidden(full), _WHAT, ComputeError)
        if isinstance(found, ConfigError):
            return ApiDisabledError(f"{found.message}; that takes some minutes: {request.said}")
        if _ROLE.search(full):
            return _unlent(loan, request)
    return AccessDeniedError(f"the identity of {loan.lender} may not be borrowed: {request.said}")


def _unlent(loan: _Loan, request: _Request) -> AccessDeniedError:
    mended = "run fsd deploy gcp, or have its callers name you" if loan.ours else "have it given to you"
    return AccessDeniedError(
        f"the identity of {loan.lender} may not be borrowed: the role {_BORROWING} on it is missing, or not in force "
        f"yet, which takes some minutes; if it lasts, {mended} ({request.said})"
    )


def _end(token: str) -> float:
    """When a token ends, in seconds of the wall clock; `WireError` or `ValueError` for what is none."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise ValueError("no token")
    part = found[1]
    return from_json(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), _Claims, WireError).exp


def _is_machine(source: Credentials) -> bool:
    return isinstance(source, compute_engine.Credentials)
