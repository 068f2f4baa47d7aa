"""How a frame travels in a message of SNS and SQS, and what the services count for it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from fsdcore.contracts.limits import ChannelCapabilities

__all__ = ["FRAME", "QUEUE_BYTES", "TARGET", "limits", "read_frame", "sns_entry", "sqs_entry"]

TARGET, FRAME = "target", "frame"
# Both services refuse a message whose text is empty.
_FILLER = "-"
_MOST_ENTRIES = 10
# What queues are made to take, in a message and in a call.
QUEUE_BYTES = 1 << 20
# What the services count of a message beside its frame: names, types and values of its attributes, and its text.
_TARGET_BYTES = len(TARGET) + len("String") + len("99-65535")
# Below the limit of a call by so much: one byte that is counted otherwise than here would fail every large call.
_MARGIN_BYTES = 1_024
_FRAME_BYTES = len(FRAME) + len("Binary") + len(_FILLER)


def _target(value: str) -> dict[str, Any]:
    return {TARGET: {"DataType": "String", "StringValue": value}}


def _content(frame: bytes, payload: str) -> tuple[str, dict[str, Any]]:
    """The text and the attributes that carry a frame."""
    if payload == "text":
        return base64.b64encode(frame).decode(), {}
    return _FILLER, {FRAME: {"DataType": "Binary", "BinaryValue": frame}}


def sns_entry(number: int, frame: bytes, target: str, payload: str) -> dict[str, Any]:
    """An entry of a `PublishBatch`, which subscriptions filter by `target`."""
    text, attributes = _content(frame, payload)
    return {"Id": str(number), "Message": text, "MessageAttributes": {**_target(target), **attributes}}


def sqs_entry(number: int, frame: bytes, payload: str) -> dict[str, Any]:
    """An entry of a `SendMessageBatch`."""
    text, attributes = _content(frame, payload)
    return {"Id": str(number), "MessageBody": text, "MessageAttributes": attributes}


def read_frame(message: Mapping[str, Any]) -> bytes:
    """The frame in a message as SQS hands it out, whichever way it travelled; nothing if it carries none."""
    attribute = message.get("MessageAttributes", {}).get(FRAME, {})
    if "BinaryValue" in attribute:
        return bytes(attribute["BinaryValue"])
    try:
        return base64.b64decode(message.get("Body", ""), validate=True)
    except ValueError:
        return b""


def limits(publish_bytes: int, payload: str, *, addressed: bool, **more: Any) -> ChannelCapabilities:
    """The limits of a channel of a service that takes calls up to `publish_bytes`; `addressed` messages bear a target.

    As base64 text a frame takes four bytes for three, padding included; the limits are given in bytes of frames.
    """
    text = payload == "text"
    publish_bytes -= _MARGIN_BYTES
    overhead = (_TARGET_BYTES if addressed else 0) + (0 if text else _FRAME_BYTES)
    if text:
        publish_bytes, overhead = publish_bytes * 3 // 4, overhead * 3 // 4 + 3
    return ChannelCapabilities(
        max_frame_bytes=publish_bytes - overhead,
        max_publish_frames=_MOST_ENTRIES,
        max_publish_bytes=publish_bytes,
        frame_overhead_bytes=overhead,
        max_receive_frames=_MOST_ENTRIES,
        binary=not text,
        multi_target=addressed,
        releases=True,
        **more,
    )
