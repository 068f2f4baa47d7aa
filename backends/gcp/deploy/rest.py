"""Google's REST APIs that have no small client library: JSON in, JSON out."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
from google.api_core import exceptions
from google.api_core.retry import Retry, if_transient_error
from google.auth.credentials import Credentials
from google.auth.exceptions import TransportError
from google.auth.transport.requests import AuthorizedSession

from backends.gcp.direct import go_direct

__all__ = ["Rest"]

_ATTEMPT, _TOTAL = 60.0, 120.0
_CONNECTION = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, TransportError)


def _is_transient(error: Exception) -> bool:
    return isinstance(error, _CONNECTION) or if_transient_error(error)


_RETRY = Retry(predicate=_is_transient, initial=0.2, maximum=10.0, multiplier=2.0, timeout=_TOTAL)


class Rest:
    """Calls with the credentials of the user; `endpoint` is a server that stands in for all of Google's, if any.

    What passes is repeated, so a call may have taken effect twice. Errors are those of ``google.api_core``.
    """

    def __init__(self, credentials: Credentials, endpoint: str = "") -> None:
        self._session, self._open, self._endpoint = AuthorizedSession(credentials), requests.Session(), endpoint
        for session in (self._session, self._open):
            go_direct(session, endpoint)

    def get(self, url: str, **query: Any) -> dict[str, Any]:
        return self._ask("GET", url, params=query)

    def ask_openly(self, url: str, **query: Any) -> dict[str, Any]:
        """As `get`, without credentials: for a service that looks at no more than what is asked."""
        return self._ask("GET", url, self._open, params=query)

    def post(self, url: str, content: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        return self._ask("POST", url, json=content, params=query)

    def put(self, url: str, content: dict[str, Any]) -> dict[str, Any]:
        return self._ask("PUT", url, json=content)

    def delete(self, url: str) -> None:
        self._ask("DELETE", url)

    def _ask(self, method: str, url: str, session: requests.Session | None = None, **content: Any) -> dict[str, Any]:
        if self._endpoint:
            url = self._endpoint + urlsplit(url).path
        return dict(_RETRY(self._once)(session or self._session, method, url, content))

    @staticmethod
    def _once(session: requests.Session, method: str, url: str, content: dict[str, Any]) -> dict[str, Any]:
        response = session.request(method, url, timeout=_ATTEMPT, **content)
        if not response.ok:
            raise exceptions.from_http_response(response)
        return dict(response.json() if response.content else {})

    def close(self) -> None:
        self._session.close()
        self._open.close()
