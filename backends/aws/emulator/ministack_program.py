"""The program ministack, run by its own Python, with two of its faults in SNS mended.

It drops the binary attributes of a batch, and it has one limit for all topics, for which it counts binary values as
the base64 text that they came in; the endpoint in front of it keeps the limits that topics have. Mended here, not in
the endpoint: a request that is taken apart there no longer bears the signature that policies are enforced by.

Nothing of this project can be imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ministack.app import main  # type: ignore[import-not-found]
from ministack.services import sns  # type: ignore[import-not-found]

_NO_LIMIT = sys.maxsize


def _batch_entries(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a batch as ministack reads them, each with the attributes that a single message would have."""
    entries: list[dict[str, Any]] = _plain_entries(parameters)
    for number, entry in enumerate(entries, 1):
        start = f"PublishBatchRequestEntries.member.{number}."
        own = {name.removeprefix(start): value for name, value in parameters.items() if name.startswith(start)}
        entry["message_attributes"] = sns._parse_message_attributes(own)
    return entries


if __name__ == "__main__":
    _plain_entries = sns._parse_batch_entries
    sns._parse_batch_entries = _batch_entries
    sns._SNS_MAX_PAYLOAD_BYTES = _NO_LIMIT
    sys.exit(main())
