"""The program ministack, run by its own Python, with two of its faults in SNS mended, and closed to web pages.

It drops the binary attributes of a batch, and it has one limit for all topics, for which it counts binary values as
the base64 text that they came in; the endpoint in front of it keeps the limits that topics have. Mended here, not in
the endpoint: a request that is taken apart there no longer bears the signature that policies are enforced by.

Its CloudFormation makes resources without asking IAM. Where `FSD_HANDLER_RIGHTS` names a file, with what AWS asks for
each type, the user whose request began the operation must have those permissions. And what is true on AWS only after a
while, new filters for example, is true here at once, unless the file that `FSD_LATENESS` names says otherwise.

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
_VISITORS = Path(__file__).resolve().parents[1] / "visitors.py"
_RIGHTS = Path(__file__).with_name("handler_rights.py")
_LATENESS = Path(__file__).with_name("lateness.py")
_VARIABLE, _LATE_VARIABLE = "FSD_HANDLER_RIGHTS", "FSD_LATENESS"
_SUBSCRIPTION, _QUEUE, _ROLE, _FUNCTION = (
    "AWS::SNS::Subscription",
    "AWS::SQS::Queue",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
)
# What Lambda allows: ministack's CloudFormation takes anything.
_RANGES = {"MemorySize": (128, 10_240), "Timeout": (1, 900)}
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
    if _table is None:
        return
    if kind not in _table:
        raise ValueError(f"{kind}: it is not known what CloudFormation asks IAM for it")
    region, account = responses.get_region(), responses.get_account_id()
    place = _rights["Place"]("aws", region, account)
    for action, resource in _rights["asked"](_table, kind, operation, place, properties, physical_id):
        denied = iam_evaluator.enforce(_caller.get(), action, action.partition(":")[0], region, resource_arn=resource)
        if denied is not None:
            raise ValueError(f"AccessDenied: not authorized to perform: {action} on resource: {resource}")


def _check(kind: str, properties: Mapping[str, Any]) -> None:
    """Refuse what the service would."""
    if kind == _QUEUE and _late.still("names", str(properties.get("QueueName"))):
        raise ValueError(_NAME_TAKEN)
    for name, (low, high) in _RANGES.items() if kind == _FUNCTION else ():
        value = int(properties.get(name, low))
        if not low <= value <= high:
            raise ValueError(
                f"1 validation error detected: Value '{value}' at '{name[0].lower()}{name[1:]}' failed to satisfy "
                f"constraint: Member must have value between {low} and {high} (Service: Lambda, Status Code: 400)"
            )


def _provision(kind: str, logical_id: str, properties: Any, stack: str) -> Any:
    _ask_iam("create", kind, properties)
    _check(kind, properties)
    made = _plain_provision(kind, logical_id, properties, stack)
    if kind in (_SUBSCRIPTION, _ROLE):
        _late.note("filters" if kind == _SUBSCRIPTION else "roles", made[0])
    return made


def _update(kind: str, physical_id: str, old: Any, new: Any, *others: Any) -> Any:
    if old != new:
        _ask_iam("update", kind, new, physical_id)
        _check(kind, new)
    return _plain_update(kind, physical_id, old, new, *others)


def _delete(kind: str, physical_id: str, properties: Any, *others: Any) -> Any:
    _ask_iam("delete", kind, properties, physical_id)
    if kind == _QUEUE:
        _late.note("names", str(properties.get("QueueName")))
    return _plain_delete(kind, physical_id, properties, *others)


def _matches(subscription: Mapping[str, Any], *others: Any) -> Any:
    return _late.still("filters", str(subscription.get("arn"))) or _plain_matches(subscription, *others)


def _role_policies(role: str, account: str) -> Any:
    return [] if _late.still("roles", role) else _plain_role_policies(role, account)


if __name__ == "__main__":
    _rights = runpy.run_path(str(_RIGHTS))
    _table = json.loads(Path(os.environ[_VARIABLE]).read_text(encoding="utf-8")) if os.environ.get(_VARIABLE) else None
    _lateness = runpy.run_path(str(_LATENESS))
    _late, _NAME_TAKEN = _lateness["Late"](Path(os.environ[_LATE_VARIABLE])), _lateness["NAME_TAKEN"]
    _plain_provision, stacks._provision_resource = stacks._provision_resource, _provision
    _plain_update, stacks._update_resource = stacks._update_resource, _update
    _plain_delete, stacks._delete_resource = stacks._delete_resource, _delete
    _plain_matches, sns._matches_filter_policy = sns._matches_filter_policy, _matches
    _plain_role_policies = iam_evaluator._gather_role_policies
    iam_evaluator._gather_role_policies = _role_policies
    _refusal = runpy.run_path(str(_VISITORS))["refusal"]
    _plain_app, program.app = program.app, _guarded
    _plain_entries = sns._parse_batch_entries
    sns._parse_batch_entries = _batch_entries
    sns._SNS_MAX_PAYLOAD_BYTES = _NO_LIMIT
    sys.exit(program.main())
