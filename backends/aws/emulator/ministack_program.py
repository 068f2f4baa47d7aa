"""The program ministack, run by its own Python, with two of its faults in SNS mended, and closed to web pages.

It drops the binary attributes of a batch, and it has one limit for all topics, for which it counts binary values as
the base64 text that they came in; the endpoint in front of it keeps the limits that topics have. Mended here, not in
the endpoint: a request that is taken apart there no longer bears the signature that policies are enforced by.

Nothing of this project can be imported here, but for a file that is run by its path.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ministack import app as program  # type: ignore[import-not-found]
from ministack.services import sns  # type: ignore[import-not-found]

_NO_LIMIT = sys.maxsize
_VISITORS = Path(__file__).resolve().parents[3] / "fsdcore" / "visitors.py"


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
    if refused is None:
        await _plain_app(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": refused.encode()})


if __name__ == "__main__":
    _refusal = runpy.run_path(str(_VISITORS))["refusal"]
    _plain_app, program.app = program.app, _guarded
    _plain_entries = sns._parse_batch_entries
    sns._parse_batch_entries = _batch_entries
    sns._SNS_MAX_PAYLOAD_BYTES = _NO_LIMIT
    sys.exit(program.main())
