"""``python -m benchmarks growth``: how runs grow with neurons, samples and workers. Networks are generated."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from benchmarks.plain import plain_loop
from benchmarks.tables import Table, interleaved, median
from benchmarks.workload import Workload, generated
from fsd_local import LocalBackend
from fsdcore.client.session import Model, Session
from fsdcore.contracts.settings import Method, RunSettings
from fsdcore.record.record import Record

_COLUMNS = (
    "neurons",
    "samples",
    "P",
    "wall s",
    "of plain scipy",
    "CPU s",
    "plain scipy s",
    "rows sent",
    "bytes sent",
    "messages",
)
# Beyond this a hypergraph takes minutes to split; what grows is the same with blocks.
_MOST_SPLIT = 10_000


class _Ways:
    """The plain loop and runs over some numbers of workers, which take turns."""

    def __init__(self, job: Workload, workers: tuple[int, ...]) -> None:
        self._job = job
        method: Method = "hypergraph" if job.network.inputs < _MOST_SPLIT else "block"
        self._models = {count: self._model(count, method) for count in workers}
        self._records: dict[int, Record] = {}
        self._cpu: dict[int, list[float]] = {count: [] for count in workers}

    def _model(self, workers: int, method: Method) -> Model:
        return Session(LocalBackend(), RunSettings(workers=workers, method=method)).load(self._job.network)

    def _plain(self) -> float:
        begin = time.perf_counter()
        plain_loop(self._job.network, self._job.inputs)
        return time.perf_counter() - begin

    def _run(self, workers: int) -> float:
        begin = time.process_time()
        self._records[workers] = self._models[workers].run(self._job.inputs).record
        self._cpu[workers].append(time.process_time() - begin)
        return self._records[workers].wall_seconds

    def rows(self, repeats: int) -> list[tuple[object, ...]]:
        works: dict[str, Callable[[], float]] = {"plain": self._plain}
        works |= {str(count): partial(self._run, count) for count in self._models}
        found = interleaved(works, repeats)
        plain = median(found["plain"])
        return [self._row(count, median(found[str(count)]), plain) for count in self._models]

    def _row(self, workers: int, wall: float, plain: float) -> tuple[object, ...]:
        counters = self._records[workers].counters
        sent = (counters["rows_sent"], counters["bytes_sent"], counters["messages"])
        shape = (self._job.network.inputs, int(self._job.inputs.shape[0]))
        return (*shape, workers, wall, wall / plain, median(self._cpu[workers]), plain, *sent)


def _rows(neurons: int, samples: int, workers: tuple[int, ...], quick: bool) -> list[tuple[object, ...]]:
    return _Ways(generated(neurons, samples, 24 if quick else 120), workers).rows(1 if quick else 3)


def measure(quick: bool) -> list[Table]:
    """By neurons, by samples, by workers."""
    sizes = (
        [(1_024, 2_000), (4_096, 500)] if quick else [(1_024, 10_000), (4_096, 4_000), (16_384, 1_000), (65_536, 256)]
    )
    samples = (500, 1_000) if quick else (1_000, 10_000, 40_000)
    by_neurons = [row for neurons, count in sizes for row in _rows(neurons, count, (1, 8), quick)]
    by_samples = [row for count in samples for row in _rows(1_024, count, (1, 8), quick)]
    by_workers = _rows(4_096, samples[0], (1, 2, 4) if quick else (1, 2, 4, 8, 20), quick)
    note = f"Hypergraph splits below {_MOST_SPLIT:,} neurons, blocks above; medians of {1 if quick else 3} turns."
    return [
        Table("Growth with neurons", _COLUMNS, tuple(by_neurons), note),
        Table("Growth with samples", _COLUMNS, tuple(by_samples)),
        Table("Growth with workers", _COLUMNS, tuple(by_workers)),
    ]
