"""What a record says of a run, in numbers: shares, traffic, waiting, stragglers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from fsdcore.record.record import ACTIVITIES, Record, WorkerRecord

COMPUTING = ("multiply",)
COMMUNICATING = ("encode", "send", "wait", "decode")
# Lifetime that no timer covers.
OTHER = "other"
# A page draws and lists so many ranks.
MOST_RANKS = 1024
# The order in which activities are drawn and listed.
DRAWN = ("load", "multiply", "encode", "send", "wait", "decode", OTHER)

# Two shares closer than this are about equal.
_EQUAL = 0.05
# A cause stands out if it takes more than the median rank's seconds by this share of a rank's lifetime.
_TELLING = 0.02


class Verdict(NamedTuple):
    """`word` is the largest share: computing, communicating, loading, other, both or nothing.

    `shares` are those of computing, communicating, loading and other. They add up to 1, or are all 0 if no time was
    spent.
    """

    word: str
    shares: dict[str, float]
    seconds: float


class Cause(NamedTuple):
    """Why a rank is slow: it spent `seconds` more than the median rank in `what`, a group of `CAUSES`."""

    what: str
    seconds: float


def lifetime(worker: WorkerRecord) -> float:
    """Seconds from a worker's first line to its last."""
    return max(0.0, worker.ended - worker.started)


def worker_seconds(worker: WorkerRecord) -> dict[str, float]:
    """Seconds of a worker by activity, over all layers; ``other`` is its lifetime not covered by any timer."""
    spent = {name: math.fsum(worker.seconds[name]) for name in ACTIVITIES}
    spent[OTHER] = max(0.0, lifetime(worker) - math.fsum(spent.values()))
    return {name: spent[name] for name in DRAWN}


def activity_seconds(record: Record) -> dict[str, float]:
    """Seconds by activity, summed over workers; ``other`` is lifetime not covered by any timer."""
    every = [worker_seconds(worker) for worker in record.per_worker]
    return {name: math.fsum(spent[name] for spent in every) for name in DRAWN}


def verdict(record: Record) -> Verdict:
    """Whether the run was computing or communicating."""
    spent = activity_seconds(record)
    groups = {
        "computing": math.fsum(spent[name] for name in COMPUTING),
        "communicating": math.fsum(spent[name] for name in COMMUNICATING),
        "loading": spent["load"],
        OTHER: spent[OTHER],
    }
    whole = math.fsum(groups.values())
    if whole == 0.0:
        return Verdict("nothing", dict.fromkeys(groups, 0.0), 0.0)
    shares = {name: seconds / whole for name, seconds in groups.items()}
    word = max(shares, key=lambda name: shares[name])
    near = abs(shares["computing"] - shares["communicating"]) < _EQUAL
    return Verdict("both" if near and word in ("computing", "communicating") else word, shares, whole)


def density(record: Record, layer: int) -> float | None:
    """Of the values in the rows sent for `layer`, the share that is not zero; None if no row was sent.

    Taken over batches of the mean size.
    """
    counters = record.per_layer[layer]["counters"]
    values = counters["rows_sent"] * record.samples / max(1, record.batches)
    return counters["nonzeros_sent"] / values if values else None


def received(record: Record) -> list[int]:
    """Bytes that came to each rank; 0 where the record does not say."""
    columns = zip(*(worker.bytes_to for worker in record.per_worker), strict=True)
    return [sum(column) for column in columns] or [0] * record.workers


def awaited(record: Record) -> list[float]:
    """Seconds that all workers together waited for each rank; 0 where the record does not say."""
    columns = zip(*(worker.waits_for for worker in record.per_worker), strict=True)
    return [math.fsum(column) for column in columns] or [0.0] * record.workers


def ends(record: Record) -> list[float]:
    """When each rank ended, seconds after the first one started."""
    first = min(worker.started for worker in record.per_worker)
    return [worker.ended - first for worker in record.per_worker]


def last_rank(record: Record) -> int:
    """The rank that ended last."""
    times = ends(record)
    return max(range(len(times)), key=lambda rank: times[rank])


def shown_ranks(record: Record, most: int) -> list[int]:
    """All ranks if there are at most `most`; else those that ended last and those that others wait for longest."""
    ranks = list(range(record.workers))
    if len(ranks) <= most:
        return ranks
    times, waits = ends(record), awaited(record)
    late = sorted(ranks, key=lambda rank: -times[rank])[: most // 2]
    missed = sorted(ranks, key=lambda rank: -waits[rank])[: most // 2]
    return sorted({*late, *missed})


# What may set a rank apart, in words that go on from "it".
CAUSES: dict[str, Callable[[WorkerRecord, dict[str, float]], float]] = {
    "started later": lambda worker, spent: worker.started,
    "loaded longer": lambda worker, spent: spent["load"],
    "computed longer": lambda worker, spent: spent["multiply"],
    "took longer to encode and send": lambda worker, spent: spent["encode"] + spent["send"],
    "took longer to decode": lambda worker, spent: spent["decode"],
    "waited longer itself": lambda worker, spent: spent["wait"],
}


def cause(record: Record, rank: int) -> Cause | None:
    """In what `rank` is furthest above the median rank; None if nothing stands out."""
    workers = record.per_worker
    spent = [worker_seconds(worker) for worker in workers]
    excess = {
        what: _excess([of(*each) for each in zip(workers, spent, strict=True)], rank) for what, of in CAUSES.items()
    }
    what = max(excess, key=lambda name: excess[name])
    telling = _TELLING * median(lifetime(worker) for worker in workers)
    return Cause(what, excess[what]) if excess[what] > telling else None


def _excess(values: Sequence[float], rank: int) -> float:
    return values[rank] - median(values)
