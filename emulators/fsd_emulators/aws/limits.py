"""Limits of AWS that ministack does not keep, with AWS's own errors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from fsd_emulators.aws.actions import Action
from fsd_emulators.aws.batches import Entry, entries_of
from fsd_emulators.aws.functions import UNPACKED_BYTES, check_settings, unpacked_size
from fsd_emulators.aws.refusals import Refusal

MESSAGE_BYTES = 262_144
_LONGEST_WAIT = 20
_ZIP_BYTES = 50 * (1 << 20)
_DEFINING = ("CreateFunction", "UpdateFunctionConfiguration", "UpdateFunctionCode")


def check(action: Action, topic_bytes: int = MESSAGE_BYTES) -> None:
    """`Refusal` if AWS would refuse the whole request; `topic_bytes` is what the topic allows in a publish."""
    if action.service == "lambda" and action.name in _DEFINING:
        check_settings(action.parameters)
        _check_zip(action.parameters)
    elif action.service == "sqs":
        _check_queue(action)
    elif action.service == "sns":
        _check_publish(action, topic_bytes)


def bad_entries(action: Action) -> Mapping[str, tuple[str, str]]:
    """The entries of a batch that AWS would refuse alone, by id: code and message."""
    if action.name == "PublishBatch":
        return {entry.id: ("InvalidParameter", "Invalid parameter: Empty message") for entry in _empty(action)}
    if action.name == "SendMessageBatch":
        message = "The request must contain the parameter MessageBody."
        return {entry.id: ("MissingParameter", message) for entry in _empty(action)}
    return {}


def _empty(action: Action) -> list[Entry]:
    return [entry for entry in entries_of(action) if not entry.text]


def _check_publish(action: Action, topic_bytes: int) -> None:
    if action.name == "Publish" and not action.parameters.get("Message"):
        raise Refusal("InvalidParameter", "Invalid parameter: Empty message")
    if sum(entry.billed_bytes for entry in entries_of(action)) <= topic_bytes:
        return
    if action.name == "Publish":
        raise Refusal("InvalidParameter", "Invalid parameter: Message too long")
    raise Refusal("BatchRequestTooLong", "The length of all the messages put together is more than the limit.")


def _check_queue(action: Action) -> None:
    wait = action.parameters.get("WaitTimeSeconds", 0)
    if action.name == "ReceiveMessage" and not 0 <= wait <= _LONGEST_WAIT:
        raise Refusal(
            "InvalidParameterValue",
            f"Value {wait} for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided.",
        )
    if action.name == "SendMessage" and not action.parameters.get("MessageBody"):
        raise Refusal("MissingParameter", "The request must contain the parameter MessageBody.")


def _check_zip(parameters: dict[str, Any]) -> None:
    given = parameters.get("ZipFile") or (parameters.get("Code") or {}).get("ZipFile")
    if not given:
        return
    try:
        data = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal("InvalidParameterValueException", "ZipFile is not base64.") from error
    if len(data) > _ZIP_BYTES:
        message = f"Request must be smaller than {_ZIP_BYTES} bytes for the CreateFunction operation"
        raise Refusal("RequestEntityTooLargeException", message, 413)
    if unpacked_size(data) > UNPACKED_BYTES:
        raise Refusal("InvalidParameterValueException", f"Unzipped size must be smaller than {UNPACKED_BYTES} bytes")
