"""Google's REST APIs that have no small client library: JSON in, JSON out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import requests
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import AuthorizedSession

from fsd_gcp.calls.connections import go_direct
from fsdcore.decoding import converted, from_json
from fsdcore.errors import WireError

_ATTEMPT, _TOTAL = 60.0, 120.0
# What is asked openly can be done without.
_OPEN_ATTEMPT, _OPEN_TOTAL = 10.0, 20.0
_CONNECTION = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, TransportError)
_SHOWN = 100


class OddAnswerError(exceptions.GoogleAPICallError):
    """A service, or what is between, answered with success what is no answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]

    def __str__(self) -> str:
        return str(self.message)


def _is_transient(error: Exception) -> bool:
    if isinstance(error, _CONNECTION):
        # Nobody becomes trusted by waiting.
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    if isinstance(error, exceptions.GoogleAPICallError):
        code = error.code or 0
        return code in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or code >= _FAULTS
    return isinstance(error, GoogleAuthError) and error.retryable


# The first status that says that the fault is the service's.
_FAULTS = 500
_RETRY = Retry(predicate=_is_transient, initial=0.2, maximum=10.0, multiplier=2.0, timeout=_TOTAL)


class Rest:
    """Calls with the credentials of the user; `endpoint` is a server that stands in for all of Google's, if any.

    What passes is repeated for two minutes, so a call may have taken effect twice. Errors are those of
    ``google.api_core``, ``google.auth`` and ``requests``, the last that there was: `OddAnswerError` too, if what comes
    is no JSON, or has not the fields of `like` where that is given.
    """

    def __init__(self, credentials: Credentials, endpoint: str = "") -> None:
        self._session, self._open, self._endpoint = AuthorizedSession(credentials), requests.Session(), endpoint
        for session in (self._session, self._open):
            go_direct(session, endpoint)

    def get(self, url: str, like: type[msgspec.Struct] | None = None, **query: Any) -> dict[str, Any]:
        """JSON of `url`, with `query` in the address."""
        return self._ask("GET", url, like, params=query)

    def ask_openly(self, url: str, like: type[msgspec.Struct] | None = None, **query: Any) -> dict[str, Any]:
        """As `get`, for some seconds and without credentials: of a service that looks only at what is asked."""
        send, url = _Sending(self._open, _OPEN_ATTEMPT, like), self._place(url)
        return _repeated(_RETRY.with_timeout(_OPEN_TOTAL), send, "GET", url, {"params": query})

    def post(
        self,
        url: str,
        content: dict[str, Any] | None = None,
        like: type[msgspec.Struct] | None = None,
        **query: Any,
    ) -> dict[str, Any]:
        """Sends `content` as JSON, if there is any, and `query` in the address; returns the JSON of the answer."""
        return self._ask("POST", url, like, json=content, params=query)

    def put(self, url: str, content: dict[str, Any]) -> dict[str, Any]:
        """Replaces what is at `url` by `content`; returns the JSON of the answer."""
        return self._ask("PUT", url, json=content)

    def delete(self, url: str) -> None:
        """Deletes what is at `url`; ``NotFound`` if there is nothing, which a retried call may raise after success."""
        self._ask("DELETE", url)

    def _place(self, url: str) -> str:
        return self._endpoint + urlsplit(url).path if self._endpoint else url

    def _ask(self, method: str, url: str, like: type[msgspec.Struct] | None = None, **content: Any) -> dict[str, Any]:
        return _repeated(_RETRY, _Sending(self._session, _ATTEMPT, like), method, self._place(url), content)

    def close(self) -> None:
        """Closes both sessions: with credentials, and without."""
        self._session.close()
        self._open.close()


class _Sending(NamedTuple):
    """One request: over which session, for how many seconds, and for an answer with which fields."""

    session: requests.Session
    seconds: float
    like: type[msgspec.Struct] | None

    def answer(self, method: str, url: str, content: dict[str, Any]) -> dict[str, Any]:
        response = self.session.request(method, url, timeout=self.seconds, **content)
        if not response.ok:
            raise _refusal(response)
        if not response.content and (method == "DELETE" or response.status_code == HTTPStatus.NO_CONTENT):
            return {}
        return _sound(response, self.like)


def _repeated(retry: Retry, send: _Sending, *request: Any) -> dict[str, Any]:
    """What the last try came to says more than how long it was tried."""
    try:
        return dict(retry(send.answer)(*request))
    except exceptions.RetryError as error:
        last = error.cause or error
    # Not from within: the one error has the other as its cause already.
    raise last


# Answers


class _Fault(msgspec.Struct):
    message: str = "unknown error"
    code: int = 0
    errors: list[Any] = msgspec.field(default_factory=list)
    details: list[dict[str, Any]] = msgspec.field(default_factory=list)


class _Failed(msgspec.Struct):
    error: _Fault


def _refusal(response: requests.Response) -> exceptions.GoogleAPICallError:
    """An error of the library's, which may take a body apart only if it is such as Google's are."""
    try:
        from_json(response.content, _Failed, WireError)
    except WireError:
        text = f"{_asked(response)}: HTTP {response.status_code}, {_beginning(response)}"
        return _error(response.status_code, text, response)
    error: exceptions.GoogleAPICallError = exceptions.from_http_response(response)
    error.message = error.message.replace(response.url, response.url.partition("?")[0])
    return error


def _asked(response: requests.Response) -> str:
    """Without the query, which may be long, or secret."""
    return f"{response.request.method} {response.url.partition('?')[0]}"


def _sound(response: requests.Response, like: type[msgspec.Struct] | None) -> dict[str, Any]:
    try:
        found = from_json(response.content, dict[str, Any], WireError)
        if "error" in found:
            raise _inner(response)
        converted(found, like or dict, WireError)
    except WireError as error:
        raise _odd(response, error.message) from error
    return found


def _inner(response: requests.Response) -> exceptions.GoogleAPICallError:
    """Of an error that came with success."""
    fault = from_json(response.content, _Failed, WireError).error
    if fault.code < HTTPStatus.BAD_REQUEST:
        return _odd(response, "it tells of an error")
    return _error(fault.code, f"{_asked(response)}: {fault.message}", response)


def _error(status: int, text: str, response: requests.Response) -> exceptions.GoogleAPICallError:
    made: exceptions.GoogleAPICallError = exceptions.from_http_status(status, text, response=response)
    return made


def _odd(response: requests.Response, reason: str) -> OddAnswerError:
    host = urlsplit(response.url).netloc
    return OddAnswerError(f"{host} answered {_beginning(response)}, which is none of its answers: {reason}")


def _beginning(response: requests.Response) -> str:
    text = " ".join(response.text.split())
    return repr(f"{text[:_SHOWN]}...") if len(text) > _SHOWN else repr(text) if text else "nothing"
