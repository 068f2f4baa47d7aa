"""Counters and seconds: the record of a worker, layer by layer, and that of a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self, TypeAlias

import msgspec

from fsdcore.decoding import from_json
from fsdcore.errors import WireError

ACTIVITIES = ("load", "multiply", "encode", "decode", "send", "wait")
WAIT = ACTIVITIES.index("wait")

# A worker's spans at most: as text of up to 63 bytes each they fit what it may contribute to a gather, and its end is
# where a run would fail of them.
MOST_SPANS = 4_000_000
# So many waits of a stretch stand by themselves, if they are not short.
_MOST_WAITS = 3
# What is shorter joins the longest span beside it.
_SHORT_US = 20


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A time in which a worker did one thing, in whole microseconds from the worker's `started`.

    `activity` is an index into `ACTIVITIES`; `batch` is -1 and `layer` 0 for what belongs to none. `peer` is the rank
    whose message ended the wait, -1 for merged waits and for all other activities. The spans of a worker are in order
    and do not overlap.
    """

    activity: int
    batch: int
    layer: int
    start_us: int
    duration_us: int
    peer: int = -1


class _Piece(NamedTuple):
    activity: int
    start: int
    end: int
    peer: int

    @property
    def length(self) -> int:
        return self.end - self.start


class SpanLog:
    """Records what one thread did, piece by piece, in order. Spans beyond the first `most` are dropped and counted."""

    def __init__(self, most: int = MOST_SPANS) -> None:
        self.dropped = 0
        self._most = most
        self._spans: list[Span] = []
        self._pieces: list[_Piece] = []
        self._place = (-1, 0)
        self._end = 0

    def add(self, activity: int, place: tuple[int, int], start: float, end: float, peer: int = -1) -> None:
        """A piece for `place`, (batch, layer), from `start` to `end`, both in seconds since the worker began."""
        if place != self._place:
            self._close()
            self._place = place
        # Whole numbers of the ends, not of the length, so that rounding makes no overlap.
        first = max(int(1e6 * start), self._end)
        self._end = max(int(1e6 * end), first)
        self._pieces.append(_Piece(activity, first, self._end, peer))

    def spans(self) -> list[Span]:
        """All so far."""
        self._close()
        return list(self._spans)

    def _close(self) -> None:
        """Make the spans of a stretch."""
        waits = [piece for piece in self._pieces if piece.activity == WAIT and piece.length >= _SHORT_US]
        alone = set(sorted(waits, key=lambda piece: -piece.length)[:_MOST_WAITS])
        together: list[_Piece] = []
        for piece in self._pieces:
            if piece in alone:
                self._put_together(together)
                self._write(piece.activity, piece.start, piece.length, piece.peer)
                together = []
            else:
                together.append(piece)
        self._put_together(together)
        self._pieces = []

    def _put_together(self, pieces: list[_Piece]) -> None:
        """One span for each activity, those that are short left to the longest."""
        lengths: dict[int, int] = {}
        for piece in pieces:
            lengths[piece.activity] = lengths.get(piece.activity, 0) + piece.length
        if not sum(lengths.values()):
            return
        longest = max(lengths, key=lengths.__getitem__)
        short = [activity for activity in lengths if lengths[activity] < _SHORT_US and activity != longest]
        lengths[longest] += sum(lengths.pop(activity) for activity in short)
        start = pieces[0].start
        for activity, length in lengths.items():
            self._write(activity, start, length)
            start += length

    def _write(self, activity: int, start: int, length: int, peer: int = -1) -> None:
        if len(self._spans) < self._most:
            self._spans.append(Span(activity, *self._place, start, length, peer))
        else:
            self.dropped += 1


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
