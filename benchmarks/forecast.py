"""``python -m benchmarks.forecast``: forecasts against runs that are counted, on this machine.

Traffic is that of runs in threads over the queue; memory the peak of workers that are processes of their own. The
forecast of traffic is made twice: from a sample of the input, and from all of it (`fsd forecast --exact`).
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile

import msgspec
import scipy.sparse as sp

import fsdcore as fsd
from benchmarks.processes import client_backend
from fsd_local import LocalBackend, LocalSettings
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.estimate import Forecast
from fsdcore.estimate.activity import activity_of
from fsdcore.estimate.prepare import Sources, forecaster_for, rehearsed, setting_for, target_for
from fsdcore.network.generate import digits, radixnet
from fsdcore.record.record import Record

_COUNTERS = ("messages", "frames", "publishes", "blocks_sent", "bytes_sent")


@dataclasses.dataclass(frozen=True)
class Case:
    """A network, its inputs and how it is split."""

    network: fsd.Network
    inputs: sp.csr_array
    partition: fsd.Partition

    @property
    def settings(self) -> RunSettings:
        return RunSettings(workers=self.partition.workers, deadline_seconds=600.0)


def forecasts(case: Case, backend: LocalBackend) -> tuple[Forecast, Forecast]:
    """From a sample, and from the whole input."""
    target = target_for(backend, "local", Sources())
    activity = activity_of(case.network, case.inputs)
    sampled = forecaster_for(case.network, case.partition, activity, target)
    exact = rehearsed(backend.store, case.network, case.partition, activity, case.inputs, case.settings, target)
    setting = setting_for(sampled, case.settings)
    return sampled.forecast(setting), exact.forecast(setting)


def counted(case: Case) -> Record:
    """The record of a run over the queue, in threads."""
    with Session(LocalBackend(), case.settings) as session:
        return session.load(case.network, case.partition).run(case.inputs).record


def peaks(case: Case) -> list[int]:
    """The peak memory of each rank, in processes."""
    with tempfile.TemporaryDirectory() as root:
        settings = msgspec.structs.replace(case.settings, channel="object")
        with Session(client_backend(LocalSettings(path=root)), settings) as session:
            record = session.load(case.network, case.partition).run(case.inputs).record
    return [worker.peak_memory_bytes for worker in record.per_worker]


def _compare(neurons: int, layers: int, samples: int, workers: int, method: str) -> None:
    network = radixnet(neurons, layers)
    case = Case(network, digits(samples, neurons), fsd.make_partition(network, workers, method))
    sampled, exact = forecasts(case, LocalBackend())
    record = counted(case)
    print(f"{neurons:,} neurons, {layers} layers, {samples:,} samples, {workers} workers, {method}")
    print("               counted        exact   from a sample")
    for name in _COUNTERS:
        real, whole, guess = record.counters[name], exact.counters[name], sampled.counters[name]
        print(f"{name:12s} {real:10,d} {whole:12,.0f} {guess:12,.0f} ({guess / real - 1:+.1%})")
    ratios = [need / peak for need, peak in zip(sampled.memory_bytes, peaks(case), strict=True)]
    print(f"memory: forecast over peak from {min(ratios):.3f} to {max(ratios):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neurons", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8, 20])
    parser.add_argument("--layers", type=int, default=120)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--method", default="hypergraph")
    given = parser.parse_args()
    for neurons in given.neurons:
        for workers in given.workers:
            _compare(neurons, given.layers, given.samples, workers, given.method)


if __name__ == "__main__":
    main()
