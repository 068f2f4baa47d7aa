"""Errors of Google's libraries as those of the framework: the one place where they are translated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import google.auth.exceptions
import msgspec
import requests
from google.api_core import exceptions

from fsd_gcp.calls.connections import NothingListensError
from fsd_gcp.calls.credentials_file import missing, place, remedy
from fsdcore.decoding import from_json
from fsdcore.errors import (
    AccessDeniedError,
    ChannelError,
    ConfigError,
    CredentialsError,
    DeploymentError,
    DeploymentMissingError,
    FsdError,
    StoreError,
    WireError,
)
from fsdcore.text import printable, without_secrets

# Too late, too early, too many.
_PASSING = frozenset({408, 425, 429})
# The first status that says that the fault is the service's.
_FAULTS = 500
_LONGEST_SHOWN = 200
# What a proxy said to be asked for a way through it.
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
# What a library says of a request that it cannot send, today or tomorrow.
_NEVER_SENT = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidHeader,
)


class _Told(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    """What Google's services say is wrong; its token servers say it in two texts."""

    error: _Told | str = ""
    error_description: str = ""


def status_passes(status: int) -> bool:
    """Whether a service that answers so may answer otherwise in a while."""
    return status in _PASSING or status >= _FAULTS


def error_passes(error: BaseException) -> bool:
    """Whether a request that had no answer may have one in a while.

    It may not where the other end's certificate is not trusted, a proxy refuses, or the request cannot be sent.
    """
    text = str(error)
    if isinstance(error, _NEVER_SENT) or "CERTIFICATE_VERIFY_FAILED" in text:
        return False
    refused = _TUNNEL.search(text)
    return refused is None or status_passes(int(refused[1]))


def is_page(content: bytes) -> bool:
    """Whether an answer is a page for people, as those of proxies and portals are."""
    return content.lstrip()[:1] == b"<"


def words(content: bytes) -> str:
    """What an answer says: its message, where it is an error as Google's services tell one, or its beginning."""
    return shown(_message(content) or content.decode(errors="replace"))


def _message(content: bytes) -> str:
    try:
        found = from_json(content, _Refusal, WireError)
    except WireError:
        return ""
    if isinstance(found.error, _Told):
        return found.error.message
    return ": ".join(text for text in (found.error, found.error_description) if text)


def shown(text: str) -> str:
    """`text` on one line of sensible length, printable and without secrets."""
    line = printable(without_secrets(" ".join(text.split())))
    return line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]}..."


# How the library of gRPC begins to say that it was given no token.
_NO_TOKEN = "Getting metadata from plugin failed"
_STATUS = re.compile(r"""['"]code\\?['"]\s*:\s*(\d{3})\b|\bStatus: (\d{3})\b""")
# Of a refusal without a status: the names that OAuth has for one, unless the fault is the service's, and what the
# library finds by itself.
_REFUSED = re.compile(
    r"\b(?!server_error|temporarily_unavailable|internal_failure)[a-z]+(?:_[a-z]+)+: |[Rr]eauth|"
    r"necessary fields|[Ee]xpired|[Rr]evoked|[Uu]nauthorized"
)
_SHOWN = 100
# In what is said of an API that is not enabled: the address of the page that enables it, or else the first name.
_SERVICES = (re.compile(r"apis/api/([a-z]+\.googleapis\.com)"), re.compile(r"([a-z]+\.googleapis\.com)"))
_LONGEST = 300


class OddTokenError(google.auth.exceptions.RefreshError):
    """What was answered to a request for a token is none."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]


class BucketMissingError(StoreError, DeploymentMissingError):
    """The bucket of the deployment is gone."""


class TopicMissingError(ChannelError, DeploymentMissingError):
    """A topic or subscription of the deployment is gone."""


class ProjectDeniedError(AccessDeniedError, ConfigError):
    """There is no such project, or these credentials may not use it: the services do not say which."""


def one_line(error: BaseException) -> str:
    """What an error says, on one line of sensible length."""
    said = getattr(error, "message", "") or str(error) or type(error).__name__
    text = without_secrets(" ".join(said.split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_disabled(text: str) -> bool:
    return "SERVICE_DISABLED" in text or "has not been used in project" in text or "it is disabled" in text


def is_disabled(error: Exception) -> bool:
    """Whether a refusal is of an API that is not enabled, and no permission is missing."""
    return _is_disabled(str(error))


def _quota(error: Exception) -> bool:
    if isinstance(error, exceptions.TooManyRequests):
        return "quota" in str(error).lower()
    # What the making of a function ends with.
    return isinstance(error, exceptions.GoogleAPICallError) and "quota violated" in str(error).lower()


def translation(error: Exception, what: str, kind: type[FsdError] = DeploymentError) -> FsdError:
    """The framework's error for `error`, which came of doing `what`; `kind` where no other fits."""
    text = one_line(error)
    if isinstance(error, exceptions.RetryError) and error.cause is not None:
        # Which says no more than how long it was tried.
        return kind(f"{what}: {one_line(error)}: {one_line(error.cause)}")
    if isinstance(error, google.auth.exceptions.TransportError | requests.RequestException):
        return kind(f"{what}: {_unanswered(error, text)}")
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return _of_credentials(error, what, kind)
    if isinstance(error, exceptions.Unauthorized):
        return _not_taken(what, text)
    if isinstance(error, exceptions.Forbidden):
        return _forbidden(str(error), text, what)
    if _quota(error):
        return ConfigError(f"{what}: a quota of the project is too small: {text}")
    if isinstance(error, exceptions.ServiceUnavailable) and _NO_TOKEN in text:
        return _of_token(error, what, kind)
    return kind(f"{what}: {text}")


def _unanswered(error: Exception, text: str) -> str:
    """Why a request has no answer that can be read."""
    if isinstance(error, NothingListensError):
        return str(error)
    if isinstance(error, requests.exceptions.InvalidJSONError):
        return f"the service answered what is no JSON: {_beginning(error)}"
    return f"the service cannot be reached: {text}{_distrusted(text)}"


def _beginning(error: Exception) -> str:
    """Of what was answered."""
    return repr(str(getattr(error, "doc", ""))[:_SHOWN])


def _distrusted(text: str) -> str:
    """What to do about a certificate that is not trusted."""
    return "; REQUESTS_CA_BUNDLE may name a file with whom to trust" if "CERTIFICATE_VERIFY_FAILED" in text else ""


# Credentials


def _of_credentials(error: google.auth.exceptions.GoogleAuthError, what: str, kind: type[FsdError]) -> FsdError:
    if not isinstance(error, google.auth.exceptions.DefaultCredentialsError):
        return _of_token(error, what, kind)
    if (file := place()) is None:
        return CredentialsError(f"{what}: {missing()}")
    return CredentialsError(f"{what}: {file.refusal(one_line(error)).message}")


def _of_token(error: Exception, what: str, kind: type[FsdError]) -> FsdError:
    """Of a token that was not given: to log in anew mends only what is said of the login."""
    full, text = str(error), one_line(error)
    if _is_disabled(full):
        return _forbidden(full, text, what)
    status = _status(full)
    if status == HTTPStatus.FORBIDDEN:
        return AccessDeniedError(f"{what}: no permission: {text}")
    if _is_of_login(error, full, status):
        return _not_taken(what, text)
    return kind(f"{what}: no token was given: {text}")


def _status(text: str) -> int:
    """The status of the answer in what Google's library says of it; 0 if it does not say."""
    found = _STATUS.search(text)
    return int(found[found.lastindex or 0]) if found else 0


def _is_of_login(error: Exception, full: str, status: int) -> bool:
    if status:
        return status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED)
    if isinstance(error, OddTokenError) or getattr(error, "retryable", False):
        return False
    return _REFUSED.search(full) is not None


def _not_taken(what: str, text: str) -> CredentialsError:
    return CredentialsError(f"{what}: the credentials are not taken ({text}); {remedy()}")


def _forbidden(full: str, text: str, what: str) -> FsdError:
    if _is_disabled(full):
        named = (pattern.search(full) for pattern in _SERVICES)
        name = next((found[1] for found in named if found), "SERVICE")
        return ConfigError(f"{what}: the API {name} is not enabled; run: gcloud services enable {name}")
    return AccessDeniedError(f"{what}: no permission: {text}")


@contextmanager
def translated(what: str, kind: type[FsdError] = DeploymentError) -> Iterator[None]:
    """Raise errors of Google's libraries from the block as the framework's."""
    try:
        yield
    except (exceptions.GoogleAPIError, google.auth.exceptions.GoogleAuthError, requests.RequestException) as error:
        raise translation(error, what, kind) from error


@contextmanager
def sound_answers() -> Iterator[None]:
    """Raise as `OddTokenError` what the library ends with where a token is no token: it looks at little before."""
    try:
        yield
    except google.auth.exceptions.GoogleAuthError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise OddTokenError(f"the answer to a request for a token is not what it should be ({said})") from error


@contextmanager
def project_checked(what: str, project: str, kind: type[FsdError] = DeploymentError) -> Iterator[None]:
    """As `translated`, for what is asked first of a project: a refusal may mean that there is none of that name."""
    try:
        with translated(what, kind):
            yield
    except AccessDeniedError as error:
        if isinstance(error, CredentialsError) or not isinstance(error.__cause__, exceptions.Forbidden):
            raise
        text = one_line(error.__cause__)
        raise ProjectDeniedError(
            f"{what}: project {project!r} does not exist, or these credentials may not use it: {text}"
        ) from error.__cause__
