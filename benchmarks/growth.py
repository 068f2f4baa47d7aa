"""``python -m benchmarks growth``: how runs grow with neurons, samples and workers. Networks are generated."""

from __future__ import annotations

import time

from backends.local import LocalBackend
from benchmarks.plain import plain_loop
from benchmarks.tables import Table
from benchmarks.workload import Workload, generated
from fsdcore.config import RunSettings
from fsdcore.session import Session

_COLUMNS = (
    "neurons",
    "samples",
    "layers",
    "P",
    "wall s",
    "CPU s",
    "plain scipy CPU s",
    "of plain scipy (CPU)",
    "rows sent",
    "bytes sent",
    "messages",
)


def _row(job: Workload, workers: int, plain: float) -> tuple[object, ...]:
    # Blocks, as a hypergraph takes minutes to split at these sizes, and what grows is the same.
    settings = RunSettings(workers=workers, method="hypergraph" if job.network.inputs < 10_000 else "block")
    model = Session(LocalBackend(), settings).load(job.network)
    begin = time.process_time()
    record = model.run(job.inputs).record
    cpu, counters = time.process_time() - begin, record.counters
    neurons, samples = job.network.inputs, int(job.inputs.shape[0])
    sent = (counters["rows_sent"], counters["bytes_sent"], counters["messages"])
    return (neurons, samples, len(job.network), workers, record.wall_seconds, cpu, plain, cpu / plain, *sent)


def _rows(neurons: int, samples: int, workers: tuple[int, ...], layers: int) -> list[tuple[object, ...]]:
    job = generated(neurons, samples, layers)
    plain_loop(job.network, job.inputs[:1])
    begin = time.process_time()
    plain_loop(job.network, job.inputs)
    plain = time.process_time() - begin
    return [_row(job, count, plain) for count in workers]


def measure(quick: bool) -> list[Table]:
    """By neurons, by samples, by workers."""
    layers = 24 if quick else 120
    sizes = (
        [(1_024, 2_000), (4_096, 500)] if quick else [(1_024, 10_000), (4_096, 4_000), (16_384, 1_000), (65_536, 256)]
    )
    samples = (500, 1_000) if quick else (1_000, 10_000, 40_000)
    by_neurons = [row for neurons, count in sizes for row in _rows(neurons, count, (8,), layers)]
    by_samples = [row for count in samples for row in _rows(1_024, count, (8,), layers)]
    by_workers = _rows(4_096, samples[0], (1, 2, 4) if quick else (1, 2, 4, 8, 20), layers)
    note = "Hypergraph splits below 10,000 neurons, blocks above. One run each, after one of the plain loop."
    return [
        Table("Growth with neurons", _COLUMNS, tuple(by_neurons), note),
        Table("Growth with samples", _COLUMNS, tuple(by_samples)),
        Table("Growth with workers", _COLUMNS, tuple(by_workers)),
    ]
