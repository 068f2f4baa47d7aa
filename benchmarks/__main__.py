"""``python -m benchmarks``: a run over 8 workers against the plain scipy loop in one process.

The measurements alternate, and the best of three of each is given: other work on the machine can only slow one down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import scipy.sparse as sp

import fsdcore as fsd
from benchmarks.workload import Workload, workload
from fsdcore.record import Record

_WORKERS = 8
_REPEATS = 3


def plain_loop(network: fsd.Network, x: sp.csr_array) -> sp.csr_array:
    """``Y @ W`` layer by layer, weights transposed beforehand."""
    y = x
    for layer, weights in zip(network.layers, _transposed(network), strict=True):
        y = y @ weights
        y.data += layer.bias[y.indices]
        layer.activation.apply(y.data)
        y.eliminate_zeros()
    return y


def _transposed(network: fsd.Network) -> list[sp.csr_array]:
    if network.fingerprint not in _CACHE:
        _CACHE[network.fingerprint] = [sp.csr_array(layer.weights.T) for layer in network.layers]
    return _CACHE[network.fingerprint]


_CACHE: dict[str, list[sp.csr_array]] = {}


def seconds(work: Callable[[], Any]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(job: Workload, partition: fsd.Partition) -> dict[str, list[float]]:
    """Seconds of the plain loop and of runs on both channels, in turn."""
    taken: dict[str, list[float]] = {"plain scipy": [], "queue": [], "object": []}
    for _ in range(_REPEATS):
        taken["plain scipy"].append(seconds(lambda: plain_loop(job.network, job.inputs)))
        for channel in ("queue", "object"):
            with fsd.connect("local", channel=channel, workers=_WORKERS) as session:
                model = session.load(job.network, partition)
                taken[channel].append(model.run(job.inputs).record.wall_seconds)
    return taken


def traffic(job: Workload, partition: fsd.Partition) -> Record:
    """The record of a run over the queue."""
    with fsd.connect("local", workers=_WORKERS) as session:
        return session.load(job.network, partition).run(job.inputs).record


def main() -> None:
    job = workload()
    plain_loop(job.network, job.inputs[:10])
    print(f"{job.name}, {len(job.network)} layers, {job.inputs.shape[0]:,} inputs, {_WORKERS} workers")
    start = time.perf_counter()
    partition = fsd.make_partition(job.network, _WORKERS)
    print(f"partition made in {time.perf_counter() - start:.1f} s")
    print(fsd.quality(job.network, partition))
    counters = traffic(job, partition).counters
    print(
        *(f"{name:17s} {counters[name]:,}" for name in ("rows_sent", "bytes_sent", "messages", "publishes")), sep="\n"
    )
    taken = measure(job, partition)
    base = min(taken["plain scipy"])
    for name, times in taken.items():
        print(f"{name:17s} {min(times):.2f} s, {min(times) / base:.2f}x of plain scipy")


if __name__ == "__main__":
    main()
