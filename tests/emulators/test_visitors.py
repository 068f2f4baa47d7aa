"""Who may ask a server of this machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_emulators.visitors import refusal


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:4566",
        "localhost",
        "LOCALHOST:80",
        "[::1]",
        "[::1]:80",
        "bucket.localhost:80",
        "a_b.s3.localhost",
    ],
)
def test_programs_of_this_machine_are_served(host: str) -> None:
    assert refusal([host], []) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:4566",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example#127.0.0.1",
        "127.0.0.1@evil.example",
        "evil.example/localhost",
        "0.0.0.0",
        "2130706433",
        "192.168.1.5:80",
        "[::ffff:7f00:1]",
        "localhost:80:80",
        "notlocalhost",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    assert refusal([host], []) is not None


@given(st.lists(st.text(), min_size=1))
def test_any_origin_is_refused(origins: list[str]) -> None:
    assert refusal(["127.0.0.1"], origins) is not None


@pytest.mark.parametrize("hosts", [[], ["localhost", "evil.example"], ["localhost", "localhost"]])
def test_there_must_be_one_host(hosts: list[str]) -> None:
    assert refusal(hosts, []) is not None
