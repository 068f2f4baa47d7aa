"""Counters and seconds: the record of a worker, layer by layer, and that of a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, TypeAlias

import msgspec

from fsdcore.decoding import from_json
from fsdcore.errors import WireError
from fsdcore.record.spans import ACTIVITIES, Span

__all__ = [
    "ACTIVITIES",
    "BLOCK_BYTES",
    "COUNTERS",
    "RECORD_VERSION",
    "Record",
    "Setting",
    "Span",
    "WorkerRecord",
]

# Services count what one call carries in started blocks of this size; `blocks_sent` adds them up.
BLOCK_BYTES = 64 * 1024
RECORD_VERSION = 4

COUNTERS = (
    "rows_sent",
    "nonzeros_sent",
    "messages",
    "frames",
    "publishes",
    "bytes_sent",
    "blocks_sent",
    "receives",
    "acknowledges",
    "puts",
    "gets",
    "lists",
    "invocations",
    "dropped",
)

Setting: TypeAlias = str | int | float | bool | None


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker did. In the lists entry 0 is what belongs to no layer (start, end), entry k is layer k.

    `started` and `ended` are wall-clock seconds; `peak_memory_bytes` is the largest size of its process, and
    `start_seconds` what that took to start, where it was started for this worker: a cold start.
    ``bytes_to[r]`` are the bytes of the rows sent to rank r, without the headers of frames; ``waits_for[r]`` are the
    seconds of waits that ended with a message of rank r, those for the records at the end included. `kernel` is what
    multiplied, with its instruction set, such as ``compiled (avx2)``; empty if nothing did. `spans` is empty
    unless the run was traced; `spans_dropped` counts those after the first 4,000,000, of which nothing else is kept.
    """

    rank: int
    started: float
    ended: float
    peak_memory_bytes: int
    counters: dict[str, list[int]]
    seconds: dict[str, list[float]]
    bytes_to: list[int]
    waits_for: list[float]
    kernel: str = ""
    start_seconds: float = 0.0
    spans: list[Span] = []
    spans_dropped: int = 0

    @property
    def whole(self) -> bool:
        """Whether it has all counters and activities, for the same number of layers."""
        tables: list[Mapping[str, Sequence[float]]] = [self.counters, self.seconds]
        lengths = {len(row) for table in tables for row in table.values()}
        return set(self.counters) >= set(COUNTERS) and set(self.seconds) >= set(ACTIVITIES) and len(lengths) == 1

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """What a worker sent; `WireError` for anything else."""
        found = from_json(data, cls, _not_of_a_worker)
        if not found.whole:
            raise _not_of_a_worker("it does not have all counters and seconds")
        return found


def _not_of_a_worker(reason: str) -> WireError:
    return WireError(f"not the record of a worker: {reason}")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a run. `counters` are totals, `seconds` are summed over workers; `invocations` counts all.

    ``per_layer[k]`` has the same two tables for layer k, summed over workers, entry 0 being what belongs to no
    layer; ``per_worker[r]`` is rank r's own. `settings` is how the run was configured, by the names of the
    configuration, with what was chosen where the choice was left open.
    """

    version: int = RECORD_VERSION
    run_id: str
    backend: str
    channel: str
    workers: int
    layers: int
    samples: int
    batches: int
    wall_seconds: float
    counters: dict[str, int]
    seconds: dict[str, float]
    per_layer: list[dict[str, dict[str, float]]]
    per_worker: list[WorkerRecord]
    settings: dict[str, Setting] = {}

    @property
    def traced(self) -> bool:
        """Whether it has the spans of its workers."""
        return any(worker.spans for worker in self.per_worker)

    def to_json(self) -> str:
        """The record as JSON: indented, or on one line if it is traced, as spans are many."""
        data = msgspec.json.encode(self)
        return data.decode() if self.traced else msgspec.json.format(data, indent=1).decode()


def total_counters(workers: Sequence[WorkerRecord]) -> dict[str, int]:
    """Counters summed over workers and layers."""
    return {name: sum(sum(worker.counters[name]) for worker in workers) for name in COUNTERS}


def total_seconds(workers: Sequence[WorkerRecord]) -> dict[str, float]:
    """Seconds summed over workers and layers."""
    return {name: round(sum(sum(worker.seconds[name]) for worker in workers), 6) for name in ACTIVITIES}


def by_layer(workers: Sequence[WorkerRecord], layers: int) -> list[dict[str, dict[str, float]]]:
    """Both tables for each layer, summed over workers."""
    return [
        {
            "counters": {name: sum(w.counters[name][k] for w in workers) for name in COUNTERS},
            "seconds": {name: round(sum(w.seconds[name][k] for w in workers), 6) for name in ACTIVITIES},
        }
        for k in range(layers + 1)
    ]
