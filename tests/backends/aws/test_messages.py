"""Frames in messages: they come back, and the sizes that the limits promise are those that the services count."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_aws.queue import limits, read_frame, sns_entry, sqs_entry

PAYLOADS = ["attribute", "text"]
FRAMES = st.binary(min_size=1, max_size=300)


def counted(entry: dict[str, Any]) -> int:
    """What SNS and SQS count: the text, and names, types and values of the attributes."""
    total = len(str(entry.get("Message", entry.get("MessageBody"))).encode())
    for name, attribute in entry["MessageAttributes"].items():
        value = attribute.get("StringValue", "").encode() + attribute.get("BinaryValue", b"")
        total += len(name) + len(attribute["DataType"]) + len(value)
    return total


def as_received(entry: dict[str, Any]) -> dict[str, Any]:
    """The message as raw delivery and SQS hand it out."""
    return {
        "Body": entry.get("Message", entry.get("MessageBody")),
        "MessageAttributes": {name: value for name, value in entry["MessageAttributes"].items() if name == "frame"},
    }


@given(frame=FRAMES, payload=st.sampled_from(PAYLOADS))
def test_a_frame_comes_back_from_both_services(frame: bytes, payload: str) -> None:
    assert read_frame(as_received(sns_entry(0, frame, "0-1", payload))) == frame
    assert read_frame(as_received(sqs_entry(0, frame, payload))) == frame


@given(frames=st.lists(FRAMES, min_size=1, max_size=10), payload=st.sampled_from(PAYLOADS), addressed=st.booleans())
def test_what_fits_by_the_limits_fits_the_service(frames: list[bytes], payload: str, addressed: bool) -> None:
    allowed = limits(1_024, payload, addressed=addressed)
    while sum(allowed.publish_size(len(frame)) for frame in frames) > allowed.max_publish_bytes:
        frames = frames[1:]
    entries = [
        sns_entry(number, frame, "99-65535", payload) if addressed else sqs_entry(number, frame, payload)
        for number, frame in enumerate(frames)
    ]
    assert sum(map(counted, entries)) <= 1_024


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("addressed", [True, False])
def test_the_largest_frame_leaves_a_kibibyte_of_room(payload: str, addressed: bool) -> None:
    largest = bytes(limits(256 * 1024, payload, addressed=addressed).max_frame_bytes)
    entry = sns_entry(0, largest, "99-65535", payload) if addressed else sqs_entry(0, largest, payload)
    assert 255 * 1024 - 16 <= counted(entry) <= 255 * 1024


def test_an_attribute_takes_a_quarter_less_than_text() -> None:
    attribute, text = (counted(sns_entry(0, bytes(90_000), "0-1", payload)) for payload in PAYLOADS)
    assert attribute < 0.76 * text


@pytest.mark.parametrize("body", ["-", "not base64!", "ab", base64.b64encode(b"x").decode()[:-1]])
def test_a_message_without_a_frame_has_none(body: str) -> None:
    assert read_frame({"Body": body}) == b""
    assert read_frame({"Body": body, "MessageAttributes": {"frame": {"StringValue": "x"}}}) == b""
