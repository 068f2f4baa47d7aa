"""Counters and seconds: what a worker did, layer by layer, and the record of a whole run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from fsdcore.errors import FormatError

__all__ = [
    "ACTIVITIES",
    "BLOCK_BYTES",
    "COUNTERS",
    "RECORD_VERSION",
    "Record",
    "Recorder",
    "WorkerRecord",
    "read_record",
]

# Services count what one call carries in started blocks of this size; `blocks_sent` adds them up.
BLOCK_BYTES = 64 * 1024
RECORD_VERSION = 2

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
)
ACTIVITIES = ("load", "multiply", "encode", "decode", "send", "wait")
_COUNTER_ROWS = {name: row for row, name in enumerate(COUNTERS)}
_ACTIVITY_ROWS = {name: row for row, name in enumerate(ACTIVITIES)}


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker did. In the lists entry 0 is what belongs to no layer (start, end), entry k is layer k.

    `started` and `ended` are wall-clock seconds; `peak_memory_bytes` is the largest size of its process.
    """

    rank: int
    started: float
    ended: float
    peak_memory_bytes: int
    counters: dict[str, list[int]]
    seconds: dict[str, list[float]]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a run. `counters` are totals, `seconds` are summed over workers; `invocations` counts all.

    ``per_layer[k]`` has the same two tables for layer k, summed over workers, entry 0 being what belongs to no
    layer; ``per_worker[r]`` is rank r's own.
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

    def to_json(self) -> str:
        """The record as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()


class _Timed:
    """A block whose time is recorded. A class, as a generator costs more than much of what is timed."""

    __slots__ = ("_activity", "_layer", "_recorder", "_start")

    def __init__(self, recorder: Recorder, activity: str) -> None:
        self._recorder, self._activity = recorder, activity

    def __enter__(self) -> None:
        self._layer, self._start = self._recorder.layer, time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._recorder.spent(self._activity, self._layer, time.perf_counter() - self._start)


class _Versioned(msgspec.Struct):
    version: int = 1


def read_record(file: str | os.PathLike[str]) -> Record:
    """The record that a run wrote to `file`; `FormatError` if it is none, or one of another version."""
    name = os.fspath(file)
    try:
        with open(name, "rb") as stream:
            data = stream.read()
        version = msgspec.json.decode(data, type=_Versioned).version
        if version != RECORD_VERSION:
            raise FormatError(f"a record of version {version}; this release reads version {RECORD_VERSION}", file=name)
        return msgspec.json.decode(data, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(f"not the record of a run: {error}", file=name) from error


class Recorder:
    """Counts for one worker. `add` may be called from several threads; `layer` is set by the worker's loop."""

    def __init__(self, rank: int, layers: int = 0) -> None:
        self.rank, self.layer = rank, 0
        self._started = time.time()
        self._lock = threading.Lock()
        self._counts = np.zeros((len(COUNTERS), layers + 1), np.int64)
        self._seconds = np.zeros((len(ACTIVITIES), layers + 1), np.float64)

    def set_layers(self, layers: int) -> None:
        """Make room for `layers`, once the plan is read."""
        grow = ((0, 0), (0, layers + 1 - self._counts.shape[1]))
        self._counts, self._seconds = np.pad(self._counts, grow), np.pad(self._seconds, grow)

    def add(self, counter: str, count: int = 1) -> None:
        """Add to one of `COUNTERS`, at the present layer."""
        with self._lock:
            self._counts[_COUNTER_ROWS[counter], self.layer] += count

    def timed(self, activity: str) -> _Timed:
        """Add the time of the block to one of `ACTIVITIES`, at the layer where it begins."""
        return _Timed(self, activity)

    def spent(self, activity: str, layer: int, seconds: float) -> None:
        """Add to one of `ACTIVITIES`, at `layer`."""
        with self._lock:
            self._seconds[_ACTIVITY_ROWS[activity], layer] += seconds

    def finish(self, peak_memory_bytes: int) -> WorkerRecord:
        """What has been counted so far."""
        return WorkerRecord(
            rank=self.rank,
            started=self._started,
            ended=time.time(),
            peak_memory_bytes=peak_memory_bytes,
            counters={name: row.tolist() for name, row in zip(COUNTERS, self._counts, strict=True)},
            seconds={name: row.tolist() for name, row in zip(ACTIVITIES, self._seconds.round(6), strict=True)},
        )


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
