"""Text from outside, such as names and answers of services, made fit to be shown."""

from __future__ import annotations

import difflib
import re

__all__ = ["printable", "suggestion", "without_secrets"]

# Libraries of HTTP repeat a header that they cannot send, signature or token and all.
_HEADER = re.compile(r"(?is)(invalid header value|in header value).*")
_HIDDEN = re.compile(
    r"(?is)(AWS4-HMAC-SHA256 ).*|(Bearer )\S+|"
    r"((?:(?:X-Amz-|X-Goog-)?(?:Signature|Credential|Security-Token)|access_token)=)[^\s&]+"
)


def printable(text: str) -> str:
    r"""`text` on one line, with escapes such as ``\x1b`` for all that would move, hide or turn what is shown."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def without_secrets(text: str) -> str:
    """`text` without the credentials that a library may have put into what it says went wrong."""
    text = _HEADER.sub(r"\1; does a credential hold a line end or a space?", text)
    return _HIDDEN.sub(lambda found: f"{found[found.lastindex or 0]}(hidden)", text)


def suggestion(word: str, known: list[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest of `known`, or all of them if none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known)) or 'none'}"
