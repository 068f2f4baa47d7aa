"""What a worker counts and times while it runs, for its record."""

from __future__ import annotations

import threading
from typing import Self

from fsdcore.clock import Clock
from fsdcore.record.record import ACTIVITIES, COUNTERS, SpanLog, WorkerRecord

_NUMBERS = {activity: number for number, activity in enumerate(ACTIVITIES)}


class _Timed:
    """A block whose time is recorded. A class, as a generator costs more than much of what is timed."""

    __slots__ = ("_activity", "_layer", "_recorder", "_start")

    def __init__(self, recorder: Recorder, activity: str) -> None:
        self._recorder, self._activity = recorder, activity

    def __enter__(self) -> None:
        self._layer, self._start = self._recorder.layer, self._recorder.clock.now()

    def __exit__(self, *_: object) -> None:
        recorder, end = self._recorder, self._recorder.clock.now()
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
        """Names the rank whose message ended the wait, and the (batch, layer) it was for; may be called again."""
        self._source, self._place = source, place

    def __enter__(self) -> Self:
        self._layer, self._start = self._recorder.layer, self._recorder.clock.now()
        return self

    def __exit__(self, *_: object) -> None:
        end = self._recorder.clock.now()
        self._recorder.waited(self._source, self._layer, end - self._start)
        if self._recorder.log is not None:
            self._recorder.trace("wait", self._place, self._start, end, self._source)


class Recorder:
    """Counts for one worker of `workers`, and times by `clock`; with `traced`, also when it did what.

    `add` may be called from several threads; what takes time is recorded by one. `batch` (-1 for none), `layer` and
    `kernel` are set by the worker.
    """

    def __init__(self, clock: Clock, rank: int, layers: int = 0, workers: int = 1, traced: bool = False) -> None:
        self.clock, self.rank, self.batch, self.layer, self.kernel = clock, rank, -1, 0, ""
        self.start_seconds = 0.0
        self.log = SpanLog() if traced else None
        self._workers = workers
        self._started, self._origin = _both(clock)
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
        """Add to the trace, if there is one; `start` and `end` are in seconds of the clock."""
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
            ended=self._started + self.clock.now() - self._origin,
            peak_memory_bytes=peak_memory_bytes,
            counters={name: list(row) for name, row in self._counts.items()},
            seconds={name: [round(spent, 6) for spent in row] for name, row in self._seconds.items()},
            bytes_to=[self._bytes_to.get(rank, 0) for rank in range(self._workers)],
            waits_for=[round(self._waits_for.get(rank, 0.0), 6) for rank in range(self._workers)],
            spans=self.log.spans() if self.log is not None else [],
            spans_dropped=self.log.dropped if self.log is not None else 0,
        )


def _both(clock: Clock) -> tuple[float, float]:
    """Wall-clock and monotonic seconds of one moment: of some readings, the one least interrupted."""
    readings = [(clock.now(), clock.wall(), clock.now()) for _ in range(5)]
    before, wall, after = min(readings, key=lambda reading: reading[2] - reading[0])
    return wall, (before + after) / 2
