"""The spans of a timeline, few enough to be drawn: traced ones, or what a record without a trace allows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fsdcore.record.record import Record, WorkerRecord
from fsdcore.record.spans import ACTIVITIES
from fsdcore.report.facts import MOST_RANKS, OTHER, shown_ranks, worker_seconds

__all__ = ["MOST_SPANS", "Spans", "spans_of", "timeline_data"]

# Spans of a page: each takes about 20 bytes.
MOST_SPANS = 120_000
_SHORTEST_US = 16

# One span a row: activity, batch, layer, start and duration in µs, peer.
Spans: TypeAlias = npt.NDArray[np.int64]
_ACTIVITY, _BATCH, _LAYER, _START, _DURATION, _PEER = range(6)


class Drawn(NamedTuple):
    """The spans of each rank that is shown, from the first worker's start. `traced`: they lie where they were.

    Spans shorter than `merged_us` are drawn together; 0 if none is.
    """

    ranks: dict[int, Spans]
    traced: bool
    merged_us: int


def spans_of(record: Record, most: int = MOST_SPANS) -> Drawn:
    """The spans of a run; if it was not traced, each worker's seconds laid end to end, layer after layer."""
    first = min(worker.started for worker in record.per_worker)
    make = _traced if record.traced else _laid
    ranks = {rank: make(record.per_worker[rank], first) for rank in shown_ranks(record, MOST_RANKS)}
    shortest = 0
    while sum(map(len, ranks.values())) > most:
        shortest = 2 * shortest or _SHORTEST_US
        ranks = {rank: _merged(spans, shortest) for rank, spans in ranks.items()}
    return Drawn(ranks, record.traced, shortest)


def _offset(worker: WorkerRecord, first: float) -> int:
    return round(1e6 * (worker.started - first))


def _traced(worker: WorkerRecord, first: float) -> Spans:
    rows = [
        (span.activity, span.batch, span.layer, span.start_us, span.duration_us, span.peer) for span in worker.spans
    ]
    spans = np.array(rows, np.int64).reshape(-1, 6)
    spans[:, _START] += _offset(worker, first)
    return spans[np.argsort(spans[:, _START], kind="stable")]


def _laid(worker: WorkerRecord, first: float) -> Spans:
    seconds = np.array([worker.seconds[name] for name in ACTIVITIES]).T
    durations = np.rint(1e6 * seconds).astype(np.int64)
    layer, activity = np.nonzero(durations)
    lengths = durations[layer, activity]
    starts = np.cumsum(lengths) - lengths + _offset(worker, first)
    nothing = np.full_like(layer, -1)
    return np.stack([activity, nothing, layer, starts, lengths, nothing], axis=1)


def _merged(spans: Spans, shortest: int) -> Spans:
    """What is shorter than `shortest` µs, as one span for each activity in each stretch of about that length.

    A stretch lies between two spans that are not short; in it the activities follow one another.
    """
    short = spans[:, _DURATION] < shortest
    many, before = spans[short], np.cumsum(~short)[short]
    changes = np.diff(before, prepend=-1) + np.diff(many[:, _START] // shortest, prepend=-1)
    stretch = np.cumsum(changes != 0)
    group, first, inverse = np.unique(
        stretch * len(ACTIVITIES) + many[:, _ACTIVITY], return_index=True, return_inverse=True
    )
    merged = many[first]
    merged[:, _DURATION] = np.bincount(inverse, many[:, _DURATION], len(first)).astype(np.int64)
    merged[:, _PEER] = -1
    ends = np.cumsum(merged[:, _DURATION])
    _, opening, place = np.unique(group // len(ACTIVITIES), return_index=True, return_inverse=True)
    begin = np.minimum.reduceat(merged[:, _START], opening) if len(opening) else opening
    lead = (ends - merged[:, _DURATION])[opening]
    merged[:, _START] = (begin - lead)[place] + ends - merged[:, _DURATION]
    both = np.concatenate([spans[~short], merged])
    return both[np.argsort(both[:, _START], kind="stable")]


def timeline_data(record: Record) -> dict[str, Any]:
    """What the page's program draws: flat integers, starts as steps from the start before."""
    drawn = spans_of(record)
    first = min(worker.started for worker in record.per_worker)
    ranks = []
    for rank, spans in drawn.ranks.items():
        worker = record.per_worker[rank]
        steps = spans.copy()
        steps[:, _START] = np.diff(spans[:, _START], prepend=0)
        start = _offset(worker, first)
        end = start + round(1e6 * math.fsum(worker_seconds(worker).values()))
        ranks.append({"rank": rank, "start": start, "end": end, "spans": steps.ravel().tolist()})
    return {"activities": [*ACTIVITIES, OTHER], "ranks": ranks, "traced": drawn.traced, "merged": drawn.merged_us}
