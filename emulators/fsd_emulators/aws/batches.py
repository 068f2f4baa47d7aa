"""Requests with several entries: what is in them, and how one is answered where some of them are refused."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from fsd_emulators.aws.actions import Action

_BATCHES = {
    ("sns", "PublishBatch"),
    ("sqs", "SendMessageBatch"),
    ("sqs", "DeleteMessageBatch"),
    ("sqs", "ChangeMessageVisibilityBatch"),
}
_MEMBER = re.compile(r"PublishBatchRequestEntries\.member\.(\d+)\.(.+)")
_BINARY = ("BinaryValue", "Value.BinaryValue")


@dataclass(frozen=True)
class Entry:
    """One entry: `billed_bytes` are those of its text and of the names, types and values of its attributes."""

    id: str
    text: str
    billed_bytes: int


def is_batch(action: Action) -> bool:
    return (action.service, action.name) in _BATCHES


def entries_of(action: Action) -> list[Entry]:
    """What the request sends or deletes, one entry for a request that is no batch; empty for any other."""
    if action.service == "sns":
        return _of_form(action)
    if action.name == "SendMessage":
        return [_of_json(action.parameters)]
    return [_of_json(entry) for entry in action.parameters.get("Entries", ()) if isinstance(entry, dict)]


def without(action: Action, refused: Collection[str]) -> bytes:
    """The body of the request without the entries refused."""
    if action.service == "sqs":
        kept = [entry for entry in action.parameters["Entries"] if entry.get("Id") not in refused]
        return json.dumps({**action.parameters, "Entries": kept}).encode()
    fields = {name: value for name, value in action.parameters.items() if not _MEMBER.fullmatch(name)}
    kept_members = [member for member in _members(action) if member.get("Id") not in refused]
    for number, member in enumerate(kept_members, 1):
        fields |= {f"PublishBatchRequestEntries.member.{number}.{name}": value for name, value in member.items()}
    return urlencode(fields).encode()


def with_failed(action: Action, body: bytes, refused: Mapping[str, tuple[str, str]], sender: bool = False) -> bytes:
    """The answer `body` (empty if nothing was forwarded) with the entries refused, for which the `sender` is blamed."""
    if action.service == "sqs":
        answer: dict[str, Any] = json.loads(body or b"{}")
        failed = [
            {"Id": entry, "SenderFault": sender, "Code": code, "Message": message}
            for entry, (code, message) in refused.items()
        ]
        return json.dumps({**answer, "Failed": [*answer.get("Failed", ()), *failed]}).encode()
    lines = "".join(
        f"<member><Id>{escape(entry)}</Id><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        f"<SenderFault>{str(sender).lower()}</SenderFault></member>"
        for entry, (code, message) in refused.items()
    )
    text = body.decode() or _NOTHING
    text = re.sub(r"<Failed\s*/>", "<Failed></Failed>", text)
    if "<Failed>" not in text:
        text = text.replace("</PublishBatchResult>", "<Failed></Failed></PublishBatchResult>")
    return text.replace("</Failed>", f"{lines}</Failed>").encode()


_NOTHING = (
    '<PublishBatchResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishBatchResult><Successful/>'
    "<Failed></Failed></PublishBatchResult><ResponseMetadata><RequestId>local</RequestId></ResponseMetadata>"
    "</PublishBatchResponse>"
)


def _members(action: Action) -> list[dict[str, str]]:
    members: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for name, value in action.parameters.items():
        found = _MEMBER.fullmatch(name)
        if found:
            members[int(found[1])][found[2]] = value
    return [members[number] for number in sorted(members)]


def _of_form(action: Action) -> list[Entry]:
    members = [action.parameters] if action.name == "Publish" else _members(action)
    return [Entry(member.get("Id", ""), member.get("Message", ""), _form_bytes(member)) for member in members]


def _form_bytes(member: Mapping[str, str]) -> int:
    total = len(member.get("Message", "").encode())
    for name, value in member.items():
        if name.startswith("MessageAttributes."):
            total += _decoded(value) if name.endswith(_BINARY) else len(value.encode())
    return total


def _of_json(entry: Mapping[str, Any]) -> Entry:
    text = str(entry.get("MessageBody", ""))
    total = len(text.encode())
    for name, attribute in (entry.get("MessageAttributes") or {}).items():
        total += len(name.encode()) + len(str(attribute.get("DataType", "")).encode())
        total += len(str(attribute.get("StringValue", "")).encode()) + _decoded(attribute.get("BinaryValue", ""))
    return Entry(str(entry.get("Id", "")), text, total)


def _decoded(text: str) -> int:
    """The bytes that base64 text stands for."""
    return len(text) * 3 // 4 - text[-2:].count("=")
