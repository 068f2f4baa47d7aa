"""The program ministack, run by its own Python, with two of its faults in SNS mended, and closed to web pages.

It drops the binary attributes of a batch, and it has one limit for all topics, for which it counts binary values as
the base64 text that they came in; the endpoint in front of it keeps the limits that topics have. Mended here, not in
the endpoint: a request that is taken apart there no longer bears the signature that policies are enforced by.

Its CloudFormation makes resources without asking IAM. Where `FSD_HANDLER_RIGHTS` names a file, with what AWS asks for
each type, the user whose request began the operation must have those permissions.

Nothing of this project can be imported here, but for files that are run by their paths.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ministack import app as program  # type: ignore[import-not-found]
from ministack.core import iam_evaluator, responses  # type: ignore[import-not-found]
from ministack.services import sns  # type: ignore[import-not-found]
from ministack.services.cloudformation import stacks  # type: ignore[import-not-found]

_NO_LIMIT = sys.maxsize
_VISITORS = Path(__file__).resolve().parents[3] / "fsdcore" / "visitors.py"
_RIGHTS = Path(__file__).with_name("handler_rights.py")
_VARIABLE = "FSD_HANDLER_RIGHTS"
_KEY_ID = re.compile(r"Credential=([^/,\s]+)/")
# Whose request it is: what that begins inherits it.
_caller: ContextVar[str] = ContextVar("caller", default="")


def _batch_entries(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a batch as ministack reads them, each with the attributes that a single message would have."""
    entries: list[dict[str, Any]] = _plain_entries(parameters)
    for number, entry in enumerate(entries, 1):
        start = f"PublishBatchRequestEntries.member.{number}."
        own = {name.removeprefix(start): value for name, value in parameters.items() if name.startswith(start)}
        entry["message_attributes"] = sns._parse_message_attributes(own)
    return entries


async def _guarded(scope: Any, receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """ministack, but for requests that no program of this machine sends."""
    sent = [(name.lower(), value.decode("latin-1")) for name, value in scope.get("headers", ())]
    hosts, origins = ([value for name, value in sent if name == wanted] for wanted in (b"host", b"origin"))
    refused = _refusal(hosts, origins) if scope["type"] != "lifespan" else None
    found = _KEY_ID.search(" ".join(value for name, value in sent if name == b"authorization"))
    _caller.set(found[1] if found else "")
    if refused is None:
        await _plain_app(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": refused.encode()})


# CloudFormation -------------------------------------------------------------------------------------------------


def _ask_iam(operation: str, kind: str, properties: Mapping[str, Any], physical_id: str = "") -> None:
    """Refuse the operation, as a handler of CloudFormation would, if a permission is missing."""
    if kind not in _table:
        raise ValueError(f"{kind}: it is not known what CloudFormation asks IAM for it")
    region, account = responses.get_region(), responses.get_account_id()
    place = _rights["Place"]("aws", region, account)
    for action, resource in _rights["asked"](_table, kind, operation, place, properties, physical_id):
        denied = iam_evaluator.enforce(_caller.get(), action, action.partition(":")[0], region, resource_arn=resource)
        if denied is not None:
            raise ValueError(f"AccessDenied: not authorized to perform: {action} on resource: {resource}")


def _provision(kind: str, logical_id: str, properties: Any, stack: str) -> Any:
    _ask_iam("create", kind, properties)
    return _plain_provision(kind, logical_id, properties, stack)


def _update(kind: str, physical_id: str, old: Any, new: Any, *others: Any) -> Any:
    if old != new:
        _ask_iam("update", kind, new, physical_id)
    return _plain_update(kind, physical_id, old, new, *others)


def _delete(kind: str, physical_id: str, properties: Any, *others: Any) -> Any:
    _ask_iam("delete", kind, properties, physical_id)
    return _plain_delete(kind, physical_id, properties, *others)


if __name__ == "__main__":
    if os.environ.get(_VARIABLE):
        _rights = runpy.run_path(str(_RIGHTS))
        _table = json.loads(Path(os.environ[_VARIABLE]).read_text(encoding="utf-8"))
        _plain_provision, stacks._provision_resource = stacks._provision_resource, _provision
        _plain_update, stacks._update_resource = stacks._update_resource, _update
        _plain_delete, stacks._delete_resource = stacks._delete_resource, _delete
    _refusal = runpy.run_path(str(_VISITORS))["refusal"]
    _plain_app, program.app = program.app, _guarded
    _plain_entries = sns._parse_batch_entries
    sns._parse_batch_entries = _batch_entries
    sns._SNS_MAX_PAYLOAD_BYTES = _NO_LIMIT
    sys.exit(program.main())
