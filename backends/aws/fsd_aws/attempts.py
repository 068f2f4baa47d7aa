"""Batch calls, made again for the entries that fail until none does."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any, TypeAlias

import botocore.exceptions as sdk

from fsd_aws.errors import THROTTLED, error_code, is_throttled, translate
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import ChannelError

__all__ = ["Entries", "until_none_fails"]

Entries: TypeAlias = list[dict[str, Any]]

_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
# This delivery no longer counts, for the message has come again: the later delivery is what is to be deleted.
_COME_AGAIN = frozenset({"MessageNotInflight", "ReceiptHandleIsInvalid"})


def until_none_fails(
    entries: Entries,
    call: Callable[[Entries], dict[str, Any]],
    patience_seconds: float,
    doing: str,
    count_again: Callable[..., None],
) -> None:
    """Make a batch call, and again with those entries that the answer says have failed; `ChannelError` in the end.

    What is refused because too much is asked at once is tried for `patience_seconds`, with growing pauses, whoever the
    service says is to blame. Of others, an entry that is blamed on the sender is not sent again.
    """
    deadline = Deadline.after(patience_seconds, SYSTEM_CLOCK)
    for attempt in itertools.count(1):
        failed = _failed(entries, call, doing)
        if not failed:
            return
        throttled = all(item.get("Code") in THROTTLED for item in failed.values())
        blamed = any(item.get("SenderFault") for item in failed.values())
        if deadline.passed() if throttled else (blamed or attempt >= _ATTEMPTS):
            raise ChannelError(f"{doing}: {_told(failed, len(entries), throttled, patience_seconds)}")
        entries = [entry for entry in entries if entry["Id"] in failed]
        # Not all at the same time: many workers are refused together.
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        SYSTEM_CLOCK.sleep(min(pause, max(deadline.remaining(), _FIRST_PAUSE)))
        count_again()
    raise AssertionError("attempts do not end")


def _failed(entries: Entries, call: Callable[[Entries], dict[str, Any]], doing: str) -> dict[str, dict[str, Any]]:
    """The entries that failed, by their ids: all, where the service refused the call for its rate."""
    try:
        answer = call(entries)
    except sdk.ClientError as error:
        if not is_throttled(error):
            raise translate(error, doing, ChannelError) from error
        return {entry["Id"]: {"Code": error_code(error), "Message": str(error)} for entry in entries}
    except sdk.BotoCoreError as error:
        raise translate(error, doing, ChannelError) from error
    return {item["Id"]: item for item in answer.get("Failed", ()) if item.get("Code") not in _COME_AGAIN}


def _told(failed: dict[str, dict[str, Any]], sent: int, throttled: bool, seconds: float) -> str:
    first = next(iter(failed.values()))
    text = f"{len(failed)} of {sent} messages failed, {first.get('Code')}: {first.get('Message') or 'no reason given'}"
    if not throttled:
        return text
    return (
        f"{text}; the quota of the account was in the way for {seconds:.0f} s: ask for more in Service Quotas, "
        "take fewer workers, or channel = object"
    )
