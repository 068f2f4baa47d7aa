"""Records of runs that nobody made, of any size, with all numbers from a seed."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from fsdcore.record.record import (
    ACTIVITIES,
    COUNTERS,
    Record,
    Span,
    WorkerRecord,
    by_layer,
    total_counters,
    total_seconds,
)

# Seconds that a worker of these records lives beyond what it timed.
BEYOND = 0.02


def made_record(workers: int = 4, layers: int = 5, traced: bool = False, seed: int = 0, **texts: Any) -> Record:
    """A record of `workers` and `layers`; `texts` take the place of its other fields."""
    every = [made_worker(rank, workers, layers, traced, seed) for rank in range(workers)]
    fields: dict[str, Any] = {
        "run_id": "5f0e62d8c3b1a497",
        "backend": "aws",
        "channel": "queue" if workers > 1 else "serial",
        "samples": 1000,
        "batches": 2,
        "wall_seconds": 3.25,
        "settings": {"method": "hypergraph", "seed": 0, "branching": 4, "trace": traced},
    }
    return Record(
        workers=workers,
        layers=layers,
        counters=total_counters(every),
        seconds=total_seconds(every),
        per_layer=by_layer(every, layers),
        per_worker=every,
        **{**fields, **texts},
    )


def changed(record: Record, rank: int, /, **fields: object) -> Record:
    """The record with another worker of that rank."""
    workers = list(record.per_worker)
    workers[rank] = msgspec.structs.replace(workers[rank], **fields)
    return msgspec.structs.replace(record, per_worker=workers)


def made_worker(rank: int, workers: int, layers: int, traced: bool, seed: int) -> WorkerRecord:
    """One worker: it goes through layers and activities in order, each for some milliseconds."""
    rng = np.random.default_rng([seed, rank])
    microseconds = rng.integers(1, 4_000, (layers + 1, len(ACTIVITIES)))
    started = 1.79e9 + 0.01 * rank
    seconds = {name: (microseconds[:, number] / 1e6).tolist() for number, name in enumerate(ACTIVITIES)}
    counters = {name: rng.integers(1, 2_000, layers + 1).tolist() for name in COUNTERS}
    others = np.arange(workers) != rank
    spent = float(microseconds.sum()) / 1e6
    return WorkerRecord(
        rank=rank,
        started=started,
        ended=started + spent + BEYOND,
        peak_memory_bytes=100_000_000 + rank,
        counters=counters,
        seconds=seconds,
        bytes_to=(rng.integers(0, 90_000, workers) * others).tolist(),
        waits_for=(rng.integers(0, 9_000, workers) * others / 1e6).tolist(),
        spans=_spans(microseconds, rank, workers) if traced else [],
    )


def _spans(microseconds: Any, rank: int, workers: int) -> list[Span]:
    spans, at = [], 0
    for layer, row in enumerate(microseconds.tolist()):
        for activity, length in enumerate(row):
            peer = (rank + 1) % workers if ACTIVITIES[activity] == "wait" and workers > 1 else -1
            spans.append(Span(activity, 0 if layer else -1, layer, at, length, peer))
            at += length
    return spans
