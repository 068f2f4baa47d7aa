"""Counters and seconds: what a worker did, layer by layer, and the record of a whole run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Self, TypeAlias

import msgspec

from fsdcore.decoding import from_json
from fsdcore.errors import FormatError, InputError, WireError
from fsdcore.spans import ACTIVITIES, Span, SpanLog

__all__ = [
    "ACTIVITIES",
    "BLOCK_BYTES",
    "COUNTERS",
    "RECORD_VERSION",
    "Record",
    "Recorder",
    "Setting",
    "Span",
    "WorkerRecord",
    "read_record",
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

_NUMBERS = {activity: number for number, activity in enumerate(ACTIVITIES)}

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

    def _repr_html_(self) -> str:
        from fsdcore.report.notebook import record_card

        return record_card(self)

    def to_json(self) -> str:
        """The record as JSON: indented, or on one line if it is traced, as spans are many."""
        data = msgspec.json.encode(self)
        return data.decode() if self.traced else msgspec.json.format(data, indent=1).decode()


class _Timed:
    """A block whose time is recorded. A class, as a generator costs more than much of what is timed."""

    __slots__ = ("_activity", "_layer", "_recorder", "_start")

    def __init__(self, recorder: Recorder, activity: str) -> None:
        self._recorder, self._activity = recorder, activity

    def __enter__(self) -> None:
        self._layer, self._start = self._recorder.layer, time.perf_counter()

    def __exit__(self, *_: object) -> None:
        recorder, end = self._recorder, time.perf_counter()
        recorder.spent(self._activity, self._layer, end - self._start)
        if recorder.log is not None:
            recorder.trace(self._activity, (recorder.batch, self._layer), self._start, end)


class Waiting:
    """A wait that is recorded. `ended_by` is told whose message ended it, and what place it was for."""

    __slots__ = ("_layer", "_place", "_recorder", "_source", "_start")

    def __init__(self, recorder: Recorder, source: int, place: tuple[int, int]) -> None:
        self._recorder = recorder
        self.ended_by(source, place)

    def ended_by(self, source: int, place: tuple[int, int]) -> None:
        self._source, self._place = source, place

    def __enter__(self) -> Self:
        self._layer, self._start = self._recorder.layer, time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        end = time.perf_counter()
        self._recorder.waited(self._source, self._layer, end - self._start)
        if self._recorder.log is not None:
            self._recorder.trace("wait", self._place, self._start, end, self._source)


class _Versioned(msgspec.Struct):
    version: int = 1


def read_record(file: str | os.PathLike[str]) -> Record:
    """The record that a run wrote to `file`; `FormatError` if it is none, or one of another version, or not whole."""
    # Workers write records, and read none.
    from fsdcore.files import read_document
    from fsdcore.soundness import check

    name = os.fspath(file)

    def refusal(reason: str) -> FormatError:
        return FormatError(f"not the record of a run: {reason}", file=name)

    data = read_document(name)
    version = from_json(data, _Versioned, refusal).version
    if version != RECORD_VERSION:
        raise FormatError(f"a record of version {version}; this release reads version {RECORD_VERSION}", file=name)
    record = from_json(data, Record, refusal)
    try:
        check(record)
    except InputError as error:
        raise FormatError(f"{error.message}; make it again with `fsd run --record`", file=name) from error
    return record


class Recorder:
    """Counts for one worker of `workers`; with `traced`, also when it did what.

    `add` may be called from several threads; what takes time is recorded by one. `batch` (-1 for none), `layer` and
    `kernel` are set by the worker.
    """

    def __init__(self, rank: int, layers: int = 0, workers: int = 1, traced: bool = False) -> None:
        self.rank, self.batch, self.layer, self.kernel = rank, -1, 0, ""
        self.start_seconds = 0.0
        self.log = SpanLog() if traced else None
        self._workers = workers
        self._started, self._origin = _clocks()
        self._lock = threading.Lock()
        # Lists, as adding to one number of an array costs several times as much.
        self._counts = {name: [0] * (layers + 1) for name in COUNTERS}
        self._seconds = {name: [0.0] * (layers + 1) for name in ACTIVITIES}
        self._bytes_to: dict[int, int] = {}
        self._waits_for: dict[int, float] = {}

    def set_layers(self, layers: int) -> None:
        """Make room for `layers`, once the plan is read."""
        with self._lock:
            for counts in self._counts.values():
                counts += [0] * (layers + 1 - len(counts))
            for seconds in self._seconds.values():
                seconds += [0.0] * (layers + 1 - len(seconds))

    def add(self, counter: str, count: int = 1) -> None:
        """Add to one of `COUNTERS`, at the present layer."""
        with self._lock:
            self._counts[counter][self.layer] += count

    def timed(self, activity: str) -> _Timed:
        """Add the time of the block to one of `ACTIVITIES`, at the layer where it begins."""
        return _Timed(self, activity)

    def spent(self, activity: str, layer: int, seconds: float) -> None:
        """Add to one of `ACTIVITIES`, at `layer`."""
        with self._lock:
            self._seconds[activity][layer] += seconds

    def sent(self, target: int, size: int) -> None:
        """Count a message of `size` bytes to `target`."""
        with self._lock:
            self._counts["messages"][self.layer] += 1
            self._bytes_to[target] = self._bytes_to.get(target, 0) + size

    def waiting(self, source: int, place: tuple[int, int]) -> Waiting:
        """Record the block as a wait, at the layer where it begins.

        It counts for `source` and, in a trace, for `place`, (batch, layer), unless the block says otherwise.
        """
        return Waiting(self, source, place)

    def waited(self, source: int, layer: int, seconds: float) -> None:
        """Add a wait for `source`, at `layer`."""
        with self._lock:
            self._seconds["wait"][layer] += seconds
            self._waits_for[source] = self._waits_for.get(source, 0.0) + seconds

    def trace(self, activity: str, place: tuple[int, int], start: float, end: float, peer: int = -1) -> None:
        """Add to the trace, if there is one; `start` and `end` are those of `time.perf_counter`."""
        if self.log is not None:
            self.log.add(_NUMBERS[activity], place, start - self._origin, end - self._origin, peer)

    def finish(self, peak_memory_bytes: int) -> WorkerRecord:
        """What has been counted so far."""
        return WorkerRecord(
            rank=self.rank,
            kernel=self.kernel,
            start_seconds=round(self.start_seconds, 6),
            started=self._started,
            # The wall clock may have been set meanwhile.
            ended=self._started + time.perf_counter() - self._origin,
            peak_memory_bytes=peak_memory_bytes,
            counters={name: list(row) for name, row in self._counts.items()},
            seconds={name: [round(spent, 6) for spent in row] for name, row in self._seconds.items()},
            bytes_to=[self._bytes_to.get(rank, 0) for rank in range(self._workers)],
            waits_for=[round(self._waits_for.get(rank, 0.0), 6) for rank in range(self._workers)],
            spans=self.log.spans() if self.log is not None else [],
            spans_dropped=self.log.dropped if self.log is not None else 0,
        )


def _clocks() -> tuple[float, float]:
    """The wall clock and that of `time.perf_counter` at one moment: of some readings, the one least interrupted."""
    readings = [(time.perf_counter(), time.time(), time.perf_counter()) for _ in range(5)]
    before, wall, after = min(readings, key=lambda reading: reading[2] - reading[0])
    return wall, (before + after) / 2


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
