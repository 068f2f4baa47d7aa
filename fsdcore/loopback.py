"""Services on this machine, such as those of `fsd emulate`: no proxy leads to them, and their absence shows at once."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_LOOPBACK = re.compile(r"127(\.\d{1,3}){3}")
# A host, and a port if there is a colon.
_NAME = re.compile(r"[^\s/?#@\\]*[^\s/?#@\\:]")


def is_endpoint(url: str) -> bool:
    """Whether `url` is an address as services have it: ``http`` or ``https``, a host, a port from 1 if any."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    sound = url.isprintable() and " " not in url and _NAME.fullmatch(parts.netloc) is not None
    return sound and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def is_loopback(endpoint: str) -> bool:
    """Whether `endpoint`, an URL or ``host:port``, is on this machine."""
    try:
        host = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname or ""
        return host in ("localhost", "::1") or host.endswith(".localhost") or _LOOPBACK.fullmatch(host) is not None
    except ValueError:
        return False


def is_refused(error: BaseException | None) -> bool:
    """Whether `error` came of a connection that nobody took: there is no use in trying again."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def silent(endpoint: str, backend: str, reason: str) -> str:
    """What to say where a service at `endpoint`, an URL of this machine, ended a request for this reason."""
    return f"{_place(endpoint)} does not answer as it should ({reason}); is `fsd emulate {backend}` still running?"


def absent(endpoint: str, backend: str) -> str:
    """What to say where nobody listens at `endpoint`, an URL or ``host:port`` of this machine."""
    return f"nothing listens at {_place(endpoint)}; is `fsd emulate {backend}` running?"


def _place(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc}" if "//" in endpoint else endpoint
