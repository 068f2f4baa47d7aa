"""What is shown of text from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.text import printable, without_secrets


@given(st.text())
def test_what_is_shown_is_one_line_of_printable_text(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert shown == text or not text.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("réseau, 網", "réseau, 網"),
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("one\r\ntwo\ttab\x7f\x9b", r"one\r\ntwo\ttab\x7f\x9b"),
        ("\u202egnp.exe\u2066\u2028", r"\u202egnp.exe\u2066\u2028"),
        ("lone \udcff", r"lone \udcff"),
    ],
)
def test_what_would_move_or_turn_the_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Invalid header value b'AWS4-HMAC-SHA256 Credential=SECRET\\r\\n/2025/x, Signature=SECRET'",
        "Invalid header value b'SECRET\\n'",
        "Invalid leading whitespace or return character(s) in header value: 'Bearer SECRET\\n'",
        "refused: AWS4-HMAC-SHA256 Credential=SECRET/2025, SignedHeaders=host, Signature=SECRET",
        "GET https://b/k?X-Amz-Credential=SECRET&X-Amz-Signature=SECRET&X-Amz-Security-Token=SECRET",
        "PUT https://b/k?GoogleAccessId=a&Signature=SECRET refused",
        "Max retries exceeded with url: /tokeninfo?access_token=SECRET (reset)",
        "Authorization: Bearer SECRET",
    ],
)
def test_secrets_are_not_told(text: str) -> None:
    assert "SECRET" not in without_secrets(text)


def test_other_text_is_told_as_it_is() -> None:
    assert without_secrets("the region eu-west-1 is not known") == "the region eu-west-1 is not known"
