"""``python -m benchmarks memory``: the peak memory of each worker, every one a process of its own.

The bound it is compared with is the worker's weights, twice its largest activations, and 100 MB for the interpreter and
the libraries.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile

import numpy as np

from backends.local import LocalBackend, LocalSettings
from benchmarks.tables import Table
from fsdcore.compute import Compute, Invocation
from fsdcore.worker import keep_memory_together, run_worker


class _Started(Compute):
    """All workers are started by the benchmark, so there is nothing left to start."""

    capabilities = LocalBackend().compute.capabilities

    def invoke(self, invocation: Invocation) -> None:
        del invocation


class _ProcessBackend(LocalBackend):
    @property
    def compute(self) -> Compute:
        return _Started()


class _Processes(Compute):
    """Starts a process per rank, all of them when rank 0 is asked for."""

    capabilities = LocalBackend().compute.capabilities

    def __init__(self, root: str) -> None:
        self._root = root
        self._started: list[subprocess.Popen[bytes]] = []

    def invoke(self, invocation: Invocation) -> None:
        for rank in range(invocation.workers):
            command = [sys.executable, "-m", "benchmarks.memory", "--root", self._root]
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(invocation.for_rank(rank).to_json())
            process.stdin.close()
            self._started.append(process)

    def close(self) -> None:
        for process in self._started:
            process.wait()


class _ClientBackend(LocalBackend):
    def __init__(self, settings: LocalSettings) -> None:
        super().__init__(settings)
        self._processes = _Processes(settings.path)

    @property
    def compute(self) -> Compute:
        return self._processes

    def close(self) -> None:
        self._processes.close()
        super().close()


def client_backend(settings: LocalSettings) -> LocalBackend:
    """A local backend whose workers are processes; `settings` must name a directory."""
    return _ClientBackend(settings)


def _work(root: str) -> None:
    keep_memory_together()
    run_worker(_ProcessBackend(LocalSettings(path=root)), Invocation.from_json(sys.stdin.buffer.read()))


def _measure(neurons: int, layers: int, samples: int, workers: int) -> Table:
    # Here, so that a worker does not import what only the client needs.
    from fsdcore.config import RunSettings
    from fsdcore.digits import digits
    from fsdcore.radixnet import radixnet
    from fsdcore.session import Session

    network = radixnet(neurons, layers)
    inputs = digits(samples, neurons)
    with tempfile.TemporaryDirectory() as root:
        backend = _ClientBackend(LocalSettings(path=root))
        settings = RunSettings(channel="object", workers=workers, deadline_seconds=600.0)
        with Session(backend, settings) as session:
            model = session.load(network)
            quality = model.quality
            record = model.run(inputs, batch_size=samples).record
            owners = model.partition.owners[1:]
    rows = []
    for worker in record.per_worker:
        held = max(int(np.count_nonzero(owner == worker.rank)) for owner in owners) * samples * 4 / 1e6
        weights = quality.memory_bytes[worker.rank] / 1e6
        bound, peak = weights + 2.5 * held + 100, worker.peak_memory_bytes / 1e6
        rows.append((worker.rank, weights, held, bound, peak, "within" if peak <= bound else "OVER"))
    title = f"Memory of workers, {neurons:,} neurons, {layers} layers, {samples:,} samples, {workers} workers"
    columns = ("rank", "weights MB", "activations MB", "bound MB", "peak MB", "")
    return Table(title, columns, tuple(rows), "Bound: weights, 2.5 times the activations, and 100 MB.")


def measure(quick: bool) -> list[Table]:
    """A large layer of a network over 8 workers."""
    return [_measure(4_096, 24, 1_000, 8) if quick else _measure(16_384, 120, 2_000, 8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="be a worker over this store, told what to do on standard input")
    _work(parser.parse_args().root)


if __name__ == "__main__":
    main()
