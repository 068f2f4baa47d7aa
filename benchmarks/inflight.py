"""``python -m benchmarks inflight``: throughput of several batches under way, where each frame takes its time."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import fsdcore as fsd
from benchmarks.tables import Table, interleaved, median
from benchmarks.workload import Workload, split, workload
from fsd_local import LocalBackend
from fsdcore.client.session import Model, Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.faults import Delay
from fsdcore.testing import FaultyBackend
from fsdcore.worker.worker import peak_memory_bytes

_WORKERS, _BATCHES = 8, 8


def _forget_peak() -> None:
    """Where the system can do it, the next peak is of what comes now."""
    file = Path("/proc/self/clear_refs")
    if file.exists():
        file.write_text("5", encoding="utf-8")


def _model(job: Workload, partition: fsd.Partition, seconds: float, in_flight: int) -> Model:
    backend = FaultyBackend(LocalBackend(), Delay(seconds=seconds))
    settings = RunSettings(workers=_WORKERS, in_flight=in_flight)
    return Session(backend, settings).load(job.network, partition)


def _row(job: Workload, partition: fsd.Partition, milliseconds: int, repeats: int) -> list[tuple[object, ...]]:
    ways = [1, 2, 4, 8]
    models = {m: _model(job, partition, milliseconds / 1000, m) for m in ways}
    size = -(-int(job.inputs.shape[0]) // _BATCHES)
    outputs: dict[int, bytes] = {}
    sent: dict[int, int] = {}
    cpu: dict[int, float] = {}
    peaks: dict[int, int] = {}

    def once(in_flight: int) -> float:
        _forget_peak()
        begin = time.process_time()
        result = models[in_flight].run(job.inputs, batch_size=size)
        cpu[in_flight] = time.process_time() - begin
        peaks[in_flight] = peak_memory_bytes()
        outputs[in_flight] = result.outputs.toarray().tobytes()
        sent[in_flight] = result.record.counters["messages"]
        return result.record.wall_seconds

    found = interleaved({str(m): functools.partial(once, m) for m in ways}, repeats)
    base = median(found["1"])
    assert len(set(outputs.values())) == 1, "the outputs differ"
    return [
        (
            milliseconds,
            m,
            median(found[str(m)]),
            base / median(found[str(m)]),
            cpu[m],
            sent[m],
            peaks[m] / 1e6,
        )
        for m in ways
    ]


def measure(quick: bool) -> list[Table]:
    """8 batches with 1, 2, 4 and 8 in flight, at several latencies a hop."""
    job = workload(24 if quick else 120)
    partition = split(job, _WORKERS)
    hops = (50,) if quick else (0, 20, 50, 100)
    rows = [row for hop in hops for row in _row(job, partition, hop, 1 if quick else 3)]
    samples = int(job.inputs.shape[0])
    note = (
        f"{_BATCHES} batches of {samples // _BATCHES:,} samples over {_WORKERS} workers, queue; outputs equal to the "
        "bit. Peak: of the process, all workers together with client and data."
    )
    columns = ("ms a hop", "in flight", "seconds", "speed-up", "CPU s", "messages", "peak MB")
    return [Table(f"Batches in flight, {job.name}, {len(job.network)} layers", columns, tuple(rows), note)]
