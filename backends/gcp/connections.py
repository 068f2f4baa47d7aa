"""The connection of a start: by the certificates and proxies of every other call, and watched while nothing is said."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

import certifi
import requests
from requests.utils import get_auth_from_url, select_proxy
from urllib3.util import make_headers

from fsdcore.errors import ConfigError

__all__ = ["connect", "wait_up_to"]

# The first look at a silent connection, the next ones, and how many in vain break it: within a minute in all.
_KEEPING = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 8, "TCP_KEEPCNT": 3}


def connect(url: SplitResult, seconds: float) -> http.client.HTTPConnection:
    """A connection to the server of `url`, made when first used, for which it may take `seconds`.

    The variables are those of requests: ``REQUESTS_CA_BUNDLE``, ``HTTPS_PROXY`` and ``NO_PROXY``. `ConfigError` for
    certificates that cannot be read, and for a proxy of another kind than ``http://``.
    """
    if url.scheme == "http":
        return http.client.HTTPConnection(url.netloc, timeout=seconds)
    with requests.Session() as session:
        found = session.merge_environment_settings(url.geturl(), {}, False, True, None)
    context = _trusting(certifi.where() if found["verify"] is True else str(found["verify"]))
    proxy = select_proxy(url.geturl(), found["proxies"])
    if proxy is None:
        return http.client.HTTPSConnection(url.netloc, timeout=seconds, context=context)
    return _through(proxy, url, seconds, context)


def _trusting(certificates: str) -> ssl.SSLContext:
    """By a file of certificates, or a folder of them."""
    try:
        if os.path.isdir(certificates):
            return ssl.create_default_context(capath=certificates)
        return ssl.create_default_context(cafile=certificates)
    except OSError as error:
        raise ConfigError(f"REQUESTS_CA_BUNDLE: the certificates in {certificates} cannot be read: {error}") from error


def _through(proxy: str, url: SplitResult, seconds: float, context: ssl.SSLContext) -> http.client.HTTPConnection:
    way = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if way.scheme != "http" or not way.hostname:
        raise ConfigError(
            f"HTTPS_PROXY must be such as http://proxy.example.com:3128, not {way.scheme}://{way.hostname}"
        )
    user, password = get_auth_from_url(way.geturl())
    headers = make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
    connection = http.client.HTTPSConnection(way.hostname, way.port or 80, timeout=seconds, context=context)
    connection.set_tunnel(url.hostname or "", url.port or 443, headers)
    return connection


def wait_up_to(connection: http.client.HTTPConnection, seconds: float) -> None:
    """Be patient from now on, and have the system look whether the other end is still there."""
    if connection.sock is None:
        return
    connection.sock.settimeout(seconds)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPING.items():
        if hasattr(socket, name):
            connection.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
