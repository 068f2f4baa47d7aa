"""The client's part of a run: inputs up, a look again and again whether the run is done, outputs down.

The pauses are those of `fsdcore.run`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fsdcore.forecast.model import StoreModel

__all__ = ["Looks", "found_after", "looks", "reading", "writing"]

_SHORTEST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.002, 0.1, 1.5
# Where requests take time, a list comes after so many of them, or after this share of the time so far.
_REQUESTS_PER_LIST, _SHARE_PER_LIST = 50, 0.05


class Looks(NamedTuple):
    """Requests until the client has found that the run is done, and when that was; the one that reads it included."""

    lists: int
    gets: int
    found: float


def looks(since: float, done: float, latency: float, store: StoreModel) -> Looks:
    """Of a client that begins to look at `since` for what is there from `done` on, in seconds.

    `latency`: what it takes a request to last, 0 where requests cost nothing; `store`: what they do take.
    """
    now, pause, next_list, lists, gets = since, _SHORTEST_PAUSE, 0.0, 0, 0
    while True:
        listing = now >= next_list
        if listing:
            lists += 1
            if latency:
                next_list = now + max(_REQUESTS_PER_LIST * latency, _SHARE_PER_LIST * now)
        else:
            gets += 1
        now += store.get_seconds
        if now >= done:
            return Looks(lists, gets + listing, now + store.get_seconds * listing)
        now += pause
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)
        if pause == _LONGEST_PAUSE:
            # Many looks alike: up to the next list, or to the end.
            step = _LONGEST_PAUSE + store.get_seconds
            same = math.floor((min(done, next_list if latency else done) - now) / step) - 1
            if same > 0:
                now += same * step
                lists, gets = (lists, gets + same) if latency else (lists + same, gets)


def found_after(seconds: float, store: StoreModel) -> float:
    """When a client that looks from 0 on has found what is there after `seconds`, on average: half a pause later."""
    pause = min(_LONGEST_PAUSE, seconds * (1 - 1 / _GROWTH))
    return seconds + pause / 2 + 2 * store.get_seconds


def writing(input_bytes: Sequence[float], store: StoreModel) -> float:
    """Seconds to write the inputs of all batches."""
    return len(input_bytes) * store.put_seconds + sum(input_bytes) / store.bytes_per_second


def reading(objects: int, output_bytes: float, store: StoreModel) -> float:
    """Seconds to read the outputs."""
    return objects * store.get_seconds + output_bytes / store.bytes_per_second
