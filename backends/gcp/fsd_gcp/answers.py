"""What a service answered, or why it did not: whether that may pass, and its words, fit to be shown."""

from __future__ import annotations

import re

import msgspec
import requests

from fsdcore.decoding import from_json
from fsdcore.errors import WireError
from fsdcore.text import printable, without_secrets

__all__ = ["error_passes", "is_page", "shown", "status_passes", "words"]

# Too late, too early, too many.
_PASSING = frozenset({408, 425, 429})
# The first status that says that the fault is the service's.
_FAULTS = 500
_LONGEST = 200
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
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
