"""Data from outside: as they should be, or one error of the framework."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.decoding import converted, from_json, from_toml
from fsdcore.errors import WireError


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    size: int = 0
    share: float = 0.0
    more: Any = None


def refusal(reason: str) -> WireError:
    return WireError(f"a thing that is damaged: {reason}")


BAD_JSON = {
    "nothing": b"",
    "no UTF-8": b'{"more": "\xff"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "half a pair": b'{"more": "\\ud800"}',
    "nested": b'{"more": ' + b"[" * 100_000,
    "nested and closed": b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a long number": b'{"more": ' + b"9" * 5_000 + b"}",
    "a large number": b'{"share": 1' + b"0" * 400 + b"}",
    "another type": b'{"size": 1.5}',
    "an unknown name in two lines": b'{"a\\nb": 1}',
}


@pytest.mark.parametrize("data", BAD_JSON.values(), ids=BAD_JSON)
def test_json_of_anything_else_is_one_error_in_one_line(data: bytes) -> None:
    with pytest.raises(WireError, match=r"^a thing that is damaged: .+$") as caught:
        from_json(data, Thing, refusal)
    assert "\n" not in str(caught.value)


def test_text_that_cannot_be_encoded_is_refused_as_well() -> None:
    with pytest.raises(WireError):
        from_json('{"more": "\ud800"}', Thing, refusal)


@pytest.mark.parametrize(
    "text",
    ["share = ", "size = 'x'", "other = 1", "more = " + "[" * 5_000 + "]" * 5_000, "more = " + "9" * 5_000, "a\0b = 1"],
    ids=["cut", "type", "name", "nested", "long", "control"],
)
def test_toml_of_anything_else_is_one_error_in_one_line(text: str) -> None:
    with pytest.raises(WireError, match=r"^a thing that is damaged: .+$") as caught:
        from_toml(text, Thing, refusal)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [{"share": 10**400}, {"size": "1"}, [], None, {1: 2}])
def test_values_of_anything_else_are_one_error(value: object) -> None:
    with pytest.raises(WireError, match="a thing that is damaged"):
        converted(value, Thing, refusal)


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_what_is_right_is_read(size: int, share: float) -> None:
    thing = Thing(size, share, ["x"])
    assert from_json(json.dumps(msgspec.to_builtins(thing)), Thing, refusal) == thing
    assert converted(msgspec.to_builtins(thing), Thing, refusal) == thing
    assert from_toml(f"size = {size}\nshare = {share!r}\nmore = ['x']", Thing, refusal) == thing


@given(st.binary())
def test_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        from_json(data, Thing, refusal)
    except WireError as error:
        assert "damaged" in error.message
