"""The client's part of a run: inputs up, a look again and again whether the run is done, outputs down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fsdcore.client.polling import Polling
from fsdcore.estimate.speeds import StoreModel

__all__ = ["Looks", "found_after", "looks", "reading", "writing"]


class Looks(NamedTuple):
    """Requests until the client has found that the run is done, and when that was; the one that reads it included."""

    lists: int
    gets: int
    found: float


def looks(since: float, done: float, latency: float, store: StoreModel) -> Looks:
    """Of a client whose run began at 0 and that looks, from `since` on, for what is there from `done` on, in seconds.

    `latency`: what it takes a request to last, 0 where requests cost nothing; `store`: what they do take.
    """
    polling = Polling(latency, 0.0)
    now, lists, gets = since, 0, 0
    while True:
        listing = polling.lists(now)
        lists, gets = lists + listing, gets + (not listing)
        now += store.get_seconds
        if now >= done:
            return Looks(lists, gets + listing, now + store.get_seconds * listing)
        now += polling.pause(now - since)


def found_after(seconds: float, latency: float, store: StoreModel) -> float:
    """When a client that looks from 0 on has found what is there after `seconds`, on average: half a pause later."""
    return seconds + Polling(latency, 0.0).pause(seconds) / 2 + 2 * store.get_seconds


def writing(input_bytes: Sequence[float], store: StoreModel) -> float:
    """Seconds to write the inputs of all batches."""
    return len(input_bytes) * store.put_seconds + sum(input_bytes) / store.bytes_per_second


def reading(objects: int, output_bytes: float, store: StoreModel) -> float:
    """Seconds to read the outputs."""
    return objects * store.get_seconds + output_bytes / store.bytes_per_second
