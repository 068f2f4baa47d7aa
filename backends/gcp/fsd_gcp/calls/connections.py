"""Connections by the same certificates and proxies for every call: of starts, which are watched too, and of gRPC."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url, get_environ_proxies, select_proxy
from urllib3.exceptions import LocationParseError
from urllib3.util import make_headers, parse_url

from fsdcore.errors import ConfigError, ServerError
from fsdcore.loopback import absent, is_loopback, is_refused

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


# As requests looks for them.
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Those of gRPC alone.
_GRPC_BUNDLE, _GRPC_PROXY = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "grpc_proxy"
_CERTIFICATE = b"BEGIN CERTIFICATE"
_GOOGLE, _MACHINE = "https://www.googleapis.com/", "http://metadata.google.internal/"

# The first look at a silent connection, the next ones, and how many in vain break it: within a minute in all.
_KEEPING = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 8, "TCP_KEEPCNT": 3}


def check_environment() -> None:
    """`ConfigError` if the variables name a proxy or certificates that nothing of Google's can be asked with.

    Google's library asks a machine for its identity, before all else, through the proxy for ``http``.
    """
    _trusting()
    for url in (_GOOGLE, _MACHINE):
        _proxy(url)


def connect(url: SplitResult, seconds: float) -> http.client.HTTPConnection:
    """A connection to the server of `url`, made when first used, for which it may take `seconds`.

    The variables are those of requests: ``REQUESTS_CA_BUNDLE``, ``HTTPS_PROXY`` and ``NO_PROXY``. `ConfigError` for
    certificates that cannot be read, and for a proxy of another kind than ``http://``.
    """
    if url.scheme == "http":
        return http.client.HTTPConnection(url.netloc, timeout=seconds)
    context, proxy = _trusting(), _tunnel(url.geturl())
    if proxy is None:
        return http.client.HTTPSConnection(url.netloc, timeout=seconds, context=context)
    return _through(proxy, url, seconds, context)


def _through(proxy: str, url: SplitResult, seconds: float, context: ssl.SSLContext) -> http.client.HTTPConnection:
    way = urlsplit(proxy)
    user, password = get_auth_from_url(proxy)
    headers = make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
    connection = http.client.HTTPSConnection(way.hostname or "", way.port or 80, timeout=seconds, context=context)
    connection.set_tunnel(url.hostname or "", url.port or 443, headers)
    return connection


# Certificates


def _bundle() -> tuple[str, str]:
    """The variable that names certificates, and the file or folder of them; both empty if none does."""
    return next(((name, os.environ[name]) for name in _BUNDLES if os.environ.get(name)), ("", ""))


def _trusting() -> ssl.SSLContext:
    variable, path = _bundle()
    with _readable(variable, path):
        if not os.path.isdir(path):
            return ssl.create_default_context(cafile=path or certifi.where())
        _joined(path)
        return ssl.create_default_context(capath=path)


@contextmanager
def _readable(variable: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{variable}: the certificates in {path} cannot be read: {error}") from error


def _joined(folder: str) -> bytes:
    """All certificates in a folder."""
    with os.scandir(folder) as found:
        paths = sorted(each.path for each in found if each.is_file())
    texts = [Path(path).read_bytes() for path in paths]
    joined = b"\n".join(text for text in texts if _CERTIFICATE in text)
    if not joined:
        raise OSError("there are none in this folder")
    return joined


def _roots() -> bytes | None:
    """The certificates that gRPC is to trust; None for its own, or those of a variable that is for it alone."""
    variable, path = _bundle()
    if not path or os.environ.get(_GRPC_BUNDLE):
        return None
    with _readable(variable, path):
        return _joined(path) if os.path.isdir(path) else Path(path).read_bytes()


# Proxies


def _proxy(url: str) -> SplitResult | None:
    """The proxy for `url`, if there is one; `ConfigError` if it is no address."""
    found = select_proxy(url, get_environ_proxies(url))
    if not found:
        return None
    whole = found if "://" in found else f"http://{found}"
    try:
        parse_url(whole)
        way = urlsplit(whole)
        sound = bool(way.hostname) and way.port != 0 and whole.isprintable() and " " not in whole
    except (LocationParseError, ValueError):
        sound = False
    if not sound:
        raise _wrong(url, repr(found.rpartition("@")[2]))
    return way


def _tunnel(url: str) -> str | None:
    """As `_proxy`, of the one kind that leads to all services."""
    way = _proxy(url)
    if way is not None and way.scheme != "http":
        raise _wrong(url, f"{way.scheme}://{way.hostname}")
    return way.geturl() if way is not None else None


def _wrong(url: str, value: str) -> ConfigError:
    return ConfigError(f"{_variable(url)} must be such as http://proxy.example.com:3128, not {value}")


def _variable(url: str) -> str:
    """What names the proxy for `url`: of two spellings the small one counts, where it is there."""
    spelt = [
        name
        for kind in (urlsplit(url).scheme, "all")
        for name in (f"{kind}_proxy", f"{kind}_proxy".upper())
        if os.environ.get(name)
    ]
    return spelt[0] if spelt else "the proxy in the settings of this system"


_Transport = TypeVar("_Transport")


def secured(transport: type[_Transport]) -> type[_Transport]:
    """A transport of gRPC whose channels go by the same certificates and proxies, where gRPC has variables of its own.

    Of those that name proxies it knows only the small spelling, and of the others that of certificates, not at all.
    """
    base: Any = transport

    class Secured(base):  # type: ignore[misc]
        @classmethod
        def create_channel(cls, host: str, **given: Any) -> Any:
            given["ssl_credentials"] = given.get("ssl_credentials") or _channel_credentials()
            given["options"] = [*(given.get("options") or ()), *_channel_proxy(host)]
            return super().create_channel(host, **given)

    return Secured


def _channel_credentials() -> Any:
    import grpc

    roots = _roots()
    return grpc.ssl_channel_credentials(roots) if roots else None


def _channel_proxy(host: str) -> list[tuple[str, str | int]]:
    if os.environ.get(_GRPC_PROXY):
        return []
    proxy = _tunnel(f"https://{host}/")
    return [("grpc.http_proxy", proxy)] if proxy else [("grpc.enable_http_proxy", 0)]


def wait_up_to(connection: http.client.HTTPConnection, seconds: float) -> None:
    """Be patient from now on, and have the system look whether the other end is still there."""
    if connection.sock is None:
        return
    connection.sock.settimeout(seconds)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPING.items():
        if hasattr(socket, name):
            connection.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
