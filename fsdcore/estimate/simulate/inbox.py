"""Taking in what was sent to a rank: when frames are received, opened and used, and in how many calls.

A worker has one thread. It handles the frames that have arrived, and waits for the next one when there is none. Its
work on the frames of a layer takes equally long in any order, except for the last frame: frames from higher ranks must
wait for it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from fsdcore.arrays import Float64s


class Taken(NamedTuple):
    """`end`: when all frames are used; `receives`: calls that returned something; `looks`: polls that found nothing;
    `idle`: seconds of waiting, without those of the calls.
    """

    end: float
    receives: int
    looks: int
    idle: float


class Costs(NamedTuple):
    """Seconds: for each call (an array, as many as there may be), and for each frame to bring, open and use it."""

    calls: Float64s
    bring: float
    open: float
    use: float


def take_from_queue(free: float, arrivals: Float64s, costs: Costs, most: int, extra: list[float]) -> Taken:
    """Receive frames in the order of arrival, up to `most` at a time; `arrivals` are in order of source.

    The thread is free from `free` on. `extra` are doubles that come as well, by arrival.
    """
    count = arrivals.size
    each = costs.bring + costs.open + costs.use
    if arrivals.max() <= free:
        receives = -(-(count + len(extra)) // most)
        called = float(costs.calls[:receives].sum())
        return Taken(free + called + count * each + len(extra) * costs.bring, receives, 0, 0.0)
    order = np.argsort(arrivals, kind="stable")
    # Those that come after the last one in order of source cannot be used before it is there.
    held = count - 1 - int(order[-1])
    due = arrivals[order].tolist()
    if extra:
        due = sorted([*due, *extra])
    taken = _as_they_come(free, due, costs, most, each - costs.use * held / count)
    return taken._replace(end=taken.end + held * costs.use)


def _as_they_come(free: float, due: list[float], costs: Costs, most: int, each: float) -> Taken:
    now, at, receives, idle = free, 0, 0, 0.0
    calls, count = costs.calls.tolist(), len(due)
    while at < count:
        if due[at] > now:
            idle += due[at] - now
            now = due[at]
        there = min(most, bisect_right(due, now, at) - at)
        now += calls[receives] + there * each
        at += there
        receives += 1
    return Taken(now, receives, 0, idle)


def take_by_name(free: float, arrivals: Float64s, costs: Costs, period: float, phases: Float64s) -> Taken:
    """Ask for each frame by name, in order of source, and poll every `period` seconds for one that is missing.

    `phases`: for each frame, the share of a period from its arrival to the poll that finds it, 0 to 1.
    """
    serve = costs.calls + (costs.bring + costs.open + costs.use)
    done = np.cumsum(serve)
    found = np.where(arrivals > free, arrivals + phases * period, arrivals)
    # Whoever waits begins to serve when it is found; whoever does not, when the one before is done.
    late = np.maximum.accumulate(np.maximum(found - (done - serve), free))
    finish = done + late
    before = np.concatenate([[free], finish[:-1]])
    gaps = np.where(arrivals > before, found - before, 0.0)
    waited = gaps > 0
    looks = int(np.ceil(gaps[waited] / period).sum()) if period else int(waited.sum())
    receives = 1 + int(np.count_nonzero(waited[1:]))
    return Taken(float(finish[-1]), receives, looks, float(gaps.sum()))
