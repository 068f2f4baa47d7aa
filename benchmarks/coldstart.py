"""``python -m benchmarks coldstart``: from the start of a worker's process to its first layer.

A process of its own is started for one rank of a run whose plan and inputs lie in a directory; it tells when its
interpreter runs, its imports are done, its plan is open and its first layer is computed, and ends there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.tables import Table, median
from fsdcore.clock import SYSTEM_CLOCK

_STEPS = ("interpreter", "imports", "plan opened", "inputs read", "first layer", "whole plan")


def worker(root: str, workers: int, samples: int) -> None:
    """Be the worker: print the wall-clock and the CPU seconds at each step."""
    marks: list[tuple[float, float]] = []

    def mark() -> None:
        marks.append((time.time(), time.process_time()))

    mark()
    from fsd_local import LocalBackend, LocalSettings
    from fsdcore.kernels import make_kernel
    from fsdcore.plan.files import open_rank
    from fsdcore.record.recorder import Recorder
    from fsdcore.worker.handoff import read_inputs
    from fsdcore.worker.loop import BatchLoop, Tools
    from fsdcore.worker.worker import run_worker

    del run_worker
    mark()
    store, kernel = LocalBackend(LocalSettings(path=root)).store, make_kernel()
    plan = open_rank(store, "bench", 3, workers, kernel.prepare, SYSTEM_CLOCK)
    mark()
    inputs = list(read_inputs(store, "bench", 0, plan.input_rows, samples))
    mark()
    BatchLoop(Tools(kernel, Recorder(SYSTEM_CLOCK, 3, len(plan))), 0, samples).first(plan.layers[0], inputs)
    mark()
    assert plan.layers[len(plan) - 1] is not None
    mark()
    print(*(f"{wall:.6f} {cpu:.6f}" for wall, cpu in marks))


def _start(root: str, workers: int, samples: int) -> list[tuple[float, float]]:
    """Seconds from the start of a process to each step: by the wall clock, and of its processor."""
    command = [sys.executable, "-m", "benchmarks", "--cold-start-worker", root, str(workers), str(samples)]
    begin = time.time()
    printed = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=True, env=dict(os.environ)
    ).stdout.split()
    numbers = [float(number) for number in printed]
    return [(wall - begin, cpu) for wall, cpu in zip(numbers[::2], numbers[1::2], strict=True)]


def measure(quick: bool) -> list[Table]:
    """A worker of 8, 1,024 neurons."""
    # Here, so that a worker does not import what only the benchmark needs.
    from benchmarks.workload import split, workload
    from fsd_local.stores import DirectoryStore
    from fsdcore.plan.files import write_plan
    from fsdcore.worker.handoff import write_inputs

    job = workload()
    with tempfile.TemporaryDirectory() as root:
        store = DirectoryStore(root)
        write_plan(store, "bench", job.network, split(job, 8))
        write_inputs(store, "bench", 0, job.inputs)
        size = sum(file.stat().st_size for file in Path(root, "plans", "bench").glob("3.object"))
        taken = [_start(root, 8, int(job.inputs.shape[0])) for _ in range(3 if quick else 9)]
    rows = [
        (
            step,
            median(run[at][0] for run in taken),
            min(run[at][0] for run in taken),
            median(run[at][1] for run in taken),
        )
        for at, step in enumerate(_STEPS)
    ]
    title = f"Cold start: seconds from the start of the process, {job.name}, rank 3 of 8, plan of {size / 1e6:.1f} MB"
    return [Table(title, ("until", "median", "least", "CPU"), tuple(rows))]
