"""``python -m benchmarks.simulate``: how fast the simulator is, and what it says beside the forecast and real runs.

``--scale`` for 1,000 and 10,000 workers, ``--forecast`` for simulated and forecast seconds of several settings,
``--real`` for both beside runs in threads whose frames are held up, where latency and not this machine decides.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import resource
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import msgspec

from fsd_local import LocalBackend
from fsdcore.client.session import Session
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.estimate import Forecaster, Setting, Target, load_model
from fsdcore.estimate.activity import activity_of
from fsdcore.estimate.bill import load_prices
from fsdcore.estimate.prepare import Sources, forecaster_for, setting_for, target_for
from fsdcore.estimate.simulate import STEADY, Conditions, Shape, Work, load_conditions, shape_work, work_of
from fsdcore.estimate.simulate.engine import simulate_once
from fsdcore.estimate.simulate.simulation import forecast_seconds
from fsdcore.faults import Delay
from fsdcore.network.generate import radixnet
from fsdcore.partition import make_partition
from fsdcore.testing import FaultyBackend, random_inputs

# As SNS and SQS, and as S3.
LIMITS = {
    "queue": ChannelCapabilities(max_frame_bytes=262_144, max_publish_frames=10, max_publish_bytes=262_144),
    "object": ChannelCapabilities(max_frame_bytes=1 << 30, max_publish_frames=1 << 20, max_publish_bytes=1 << 40),
}


class Size(NamedTuple):
    neurons: int
    workers: int
    channel: str
    batch_size: int = 10_000
    exchange: float = 0.1
    layers: int = 120


def aws() -> Target:
    return Target(LIMITS, load_model("aws"), load_prices("aws/us-east-1"))


def sized(size: Size, in_flight: int = 4, density: float = 0.05) -> Work:
    """A run of 10,000 samples."""
    shape = Shape(size.neurons, size.layers, size.workers, 10_000, [density], exchange=size.exchange)
    setting = Setting(size.channel, size.workers, 3008 << 20, 8, size.batch_size, in_flight=in_flight)
    return shape_work(shape, aws(), setting)


def wall(work: Work, conditions: Conditions, seeds: int = 1) -> float:
    """The median of several seeds."""
    walls = sorted(simulate_once(work, conditions, seed)[0].wall_seconds for seed in range(seeds))
    return walls[len(walls) // 2]


def scale(sizes: list[Size]) -> None:
    print("  neurons  workers  channel     messages   lay out   simulate   (CPU)      peak")
    for size in sizes:
        start = time.perf_counter()
        work = sized(size)
        laid, cpu = time.perf_counter(), time.process_time()
        simulate_once(work, load_conditions("usual"), 0)
        done, spent = time.perf_counter(), time.process_time() - cpu
        messages = sum(int(batch.sent["messages"].sum()) for batch in work.batches)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{size.neurons:9,d} {size.workers:8,d} {size.channel:>8s} {messages:12,d} {laid - start:8.1f}s "
            f"{done - laid:9.1f}s {spent:8.1f}s {peak:6.0f} MB",
            flush=True,
        )


def forecast() -> None:
    print("  neurons  workers  channel   batch  in flight   forecast     steady      usual (median of 5)")
    usual = load_conditions("usual")
    sizes = [Size(n, p, kind) for (n, p), kind in itertools.product([(4096, 8), (16384, 20), (65536, 62)], LIMITS)]
    sizes += [Size(16384, 20, kind, 1000) for kind in LIMITS]
    for size in sizes:
        for in_flight in (1, 4) if size.batch_size < 10_000 else (1,):
            work = sized(size, in_flight)
            print(
                f"{size.neurons:9,d} {size.workers:8,d} {size.channel:>8s} {size.batch_size:7,d} {work.in_flight:10d} "
                f"{forecast_seconds(work):9.2f}s {wall(work, STEADY):9.2f}s {wall(work, usual, 5):9.2f}s",
                flush=True,
            )


# Beside runs in threads ------------------------------------------------------------------------------------


def delayed(plan: Forecaster, settings: RunSettings, seconds: float) -> Work:
    """The work where every frame is on its way for so long, on this machine."""
    work = work_of(plan, setting_for(plan, settings))
    model = work.model
    channels = {
        kind: msgspec.structs.replace(each, delivery_seconds=each.delivery_seconds + seconds)
        for kind, each in model.channels.items()
    }
    started = msgspec.structs.replace(model.compute, start_seconds=0.005)
    return dataclasses.replace(work, model=msgspec.structs.replace(model, channels=channels, compute=started))


def real() -> None:
    network, x = radixnet(1024, 24), random_inputs(600, 1024, density=0.2)
    split = make_partition(network, 4, "block")
    print("latency   batches  in flight        real   simulated    forecast")
    for seconds, in_flight in itertools.product((0.02, 0.05), (1, 2, 4)):
        settings = RunSettings(workers=4, method="block", batch_size=100, in_flight=in_flight)
        with closing(LocalBackend()) as backend:
            target = target_for(backend, "local", Sources())
            plan = forecaster_for(network, split, activity_of(network, x, 100), target)
            took = min(_runs(backend, settings, network, split, x, seconds))
        work = delayed(plan, settings, seconds)
        simulated = simulate_once(work, STEADY, 0)[0].wall_seconds
        print(
            f"{1000 * seconds:4.0f} ms {len(work.batches):9d} {in_flight:10d} {took:10.2f}s {simulated:10.2f}s "
            f"{forecast_seconds(work):10.2f}s",
            flush=True,
        )


def _runs(
    backend: LocalBackend, settings: RunSettings, network: Any, split: Any, x: Any, seconds: float
) -> Iterator[float]:
    model = Session(FaultyBackend(backend, Delay(seconds=seconds)), settings).load(network, split)
    for _ in range(3):
        yield model.run(x).record.wall_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--forecast", action="store_true")
    parser.add_argument("--real", action="store_true")
    chosen = parser.parse_args()
    if chosen.scale:
        scale([Size(65536, 1000, kind) for kind in LIMITS])
        scale([Size(65536, 1000, "queue", exchange=1.0), Size(65536, 10_000, "queue")])
    if chosen.forecast:
        forecast()
    if chosen.real:
        real()


if __name__ == "__main__":
    main()
