"""Text and numbers fit to be shown to people, also those that came from outside."""

from __future__ import annotations

import difflib
import re

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


# A number and its unit stay on one line.
_GAP = "\u00a0"


def plain(shown: str) -> str:
    """The same for a terminal, with common spaces."""
    return shown.replace(_GAP, " ")


def seconds(spent: float) -> str:
    """Seconds with three digits that count: ``12.3 ms``."""
    if spent >= 99.95:
        return f"{spent:,.0f}{_GAP}s"
    if spent >= 0.9995:
        return f"{spent:.2f}{_GAP}s" if spent < 9.995 else f"{spent:.1f}{_GAP}s"
    if spent >= 0.0009995:
        return f"{spent * 1e3:.3g}{_GAP}ms"
    return f"{spent * 1e6:.3g}{_GAP}µs" if spent > 0 else f"0{_GAP}s"


def bytes_(size: float) -> str:
    """Bytes with three digits that count: ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g}{_GAP}{unit}"
        size /= 1000
    return f"{size:,.3g}{_GAP}TB"


def count(number: float) -> str:
    """A count, whole where it is."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.6g}"


def percent(share: float) -> str:
    """A share of one: ``41 %``; what is not nothing is not shown as nothing."""
    if 0 < share < 0.01:
        return f"<{_GAP}1{_GAP}%"
    return f"{100 * share:.0f}{_GAP}%"


def quantity(number: float) -> str:
    """What a line of a bill is for: whole where it is large."""
    return f"{number:,.0f}" if float(number).is_integer() or number >= 1e5 else f"{number:,.6g}"


def rate(number: float) -> str:
    """A number with three digits that count."""
    return f"{number:,.0f}" if number >= 99.95 else f"{number:.3g}"


def dollars(amount: float) -> str:
    """Dollars with four digits that count."""
    return f"${amount:,.2f}" if amount >= 100 else f"${amount:.4g}"


def exact(spent: float) -> str:
    """Seconds as a record has them, to a microsecond."""
    return f"{spent:,.6f}"
