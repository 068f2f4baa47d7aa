"""Addresses, and those of this machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.loopback import absent, is_endpoint, is_loopback, is_refused, silent


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4566", "https://sqs.eu-west-1.amazonaws.com", "http://[::1]:80/path", "http://localhost/"]
)
def test_addresses(url: str) -> None:
    assert is_endpoint(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:4566",
        "localhost",
        "http://",
        "http://:80",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:",
        "http://127.0.0.1:x",
        "http://127.0.0.1: 80",
        "http://127.0.0.1:-1",
        "http://a b",
        "http://a\n:80",
        "ftp://127.0.0.1:80",
        "//127.0.0.1:80",
        "http://[::1",
        "http://user@127.0.0.1",
    ],
)
def test_what_is_no_address(url: str) -> None:
    assert not is_endpoint(url)


@given(st.text())
def test_any_text_is_looked_at(text: str) -> None:
    assert is_endpoint(text) in (True, False)
    assert is_loopback(text) in (True, False)


@pytest.mark.parametrize(
    ("endpoint", "here"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.8.9.10", True),
        ("https://localhost:1/x", True),
        ("http://bucket.localhost:1", True),
        ("http://[::1]:1", True),
        ("127.0.0.1:8085", True),
        ("localhost:8085", True),
        ("https://storage.googleapis.com", False),
        ("http://127.0.0.1.example:1", False),
        ("http://10.0.0.5:1", False),
        ("pubsub:8085", False),
        ("", False),
    ],
)
def test_what_is_on_this_machine(endpoint: str, here: bool) -> None:
    assert is_loopback(endpoint) is here


def test_a_refused_connection_is_found_below_what_libraries_make_of_it() -> None:
    def raise_it(error: Exception, *, explicit: bool) -> None:
        try:
            raise error
        except OSError as below:
            if explicit:
                raise ValueError("above") from below
            raise ValueError("above")  # noqa: B904 - libraries do

    for explicit in (True, False):
        with pytest.raises(ValueError, match="above") as caught:
            raise_it(ConnectionRefusedError(), explicit=explicit)
        assert is_refused(caught.value)
        with pytest.raises(ValueError, match="above") as caught:
            raise_it(ConnectionResetError(), explicit=explicit)
        assert not is_refused(caught.value)


def test_what_is_said() -> None:
    expected = "nothing listens at http://127.0.0.1:1; is `fsd emulate aws` running?"
    assert absent("http://127.0.0.1:1/bucket/key?x=1", "aws") == expected
    assert "127.0.0.1:8085" in absent("127.0.0.1:8085", "gcp")
    assert "http://127.0.0.1:1 does not answer" in silent("http://127.0.0.1:1/bucket", "aws", "Closed")
