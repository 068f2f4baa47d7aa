"""Requests to services of this machine: past all proxies, and at once an error where nobody listens."""

from __future__ import annotations

import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from fsdcore.errors import ServerError
from fsdcore.loopback import absent, is_loopback, is_refused

__all__ = ["NothingListensError", "channel_options", "go_direct"]

_CONNECT_SECONDS = 5.0


class NothingListensError(requests.RequestException):
    """Nobody listens at an address of this machine. No kind of error that Google's libraries try again after."""


class _Direct(HTTPAdapter):
    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        try:
            return super().send(request, *arguments, **{**options, "proxies": {}})
        except requests.ConnectionError as error:
            if not is_refused(error):
                raise
            raise NothingListensError(absent(request.url or "", "gcp")) from error


def go_direct(session: requests.Session, endpoint: str) -> None:
    """Have `session` ask `endpoint` so, if it is on this machine."""
    if is_loopback(endpoint):
        session.mount(endpoint, _Direct())


def channel_options(target: str) -> list[tuple[str, int]]:
    """What a channel of gRPC needs to go to `target` so; `ServerError` if nobody listens there."""
    if not is_loopback(target):
        return []
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        # gRPC would go on trying for minutes.
        raise ServerError(absent(target, "gcp")) from error
    return [("grpc.enable_http_proxy", 0)]
