"""What a run does, laid out for the engine: frames and publishes by layer and rank, and the work of each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Float64s, Int32s, Int64s
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.errors import InputError
from fsdcore.estimate.forecast import Forecaster, Setting, loads_of, store_reads
from fsdcore.estimate.profile import Messages, Profile
from fsdcore.estimate.speeds import Model
from fsdcore.estimate.timing import Loads
from fsdcore.estimate.traffic import Counts, as_sent, beyond_front, counts_of, frames_of, publishes_of
from fsdcore.messages.frames import HEADER_BYTES


@dataclass(frozen=True, eq=False)
class LayerTraffic:
    """The frames of one layer, in the order in which each rank sends them; those of rank r are
    ``first[r]`` to ``first[r + 1]``.

    By frame: `target`; `body`, bytes without the header; `place`, where it stands when all are in order of target and
    source; `publish`, the number of its publish among those of its rank. By publish, those of rank r from
    ``first_publish[r]``: `size` in bytes and `leaves`, the share of the rank's frames that is encoded by then. By
    place: `source`; ``arrivals[r]`` is where the frames for rank r begin; `beyond`, whether a part of an object needs
    a request of its own, None if none does.
    """

    first: list[int]
    target: Int32s
    body: Int32s
    source: Int32s
    place: Int32s
    publish: Int32s
    first_publish: list[int]
    size: Float64s
    leaves: Float64s
    arrivals: list[int]
    single: bool
    beyond: npt.NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class BatchWork:
    """One batch of `samples`: what it makes each rank do; `traffic` by layer, from layer 1, None where nothing is sent.

    `sent`, by layer and rank, are the counters of a record that do not depend on time.
    """

    samples: int
    loads: Loads
    traffic: tuple[LayerTraffic | None, ...]
    sent: Mapping[str, Int64s]
    input_bytes: float


@dataclass(frozen=True, eq=False)
class Work:
    """A whole run. `reads`: requests to the store by rank, for plan and inputs; `holds`: whether a rank has outputs;
    `plan_bytes`, `memory_bytes` by rank. `share`: of a vCPU that a worker's thread has. `latency_seconds`: what the
    client takes a request of the store to last."""

    channel: str
    workers: int
    layers: int
    branching: int
    in_flight: int
    limits: ChannelCapabilities | None
    model: Model
    share: float
    batches: tuple[BatchWork, ...]
    reads: Int64s
    holds: npt.NDArray[np.bool_]
    plan_bytes: Float64s
    memory_bytes: Float64s
    latency_seconds: float

    @property
    def samples(self) -> int:
        """The samples of all batches."""
        return sum(batch.samples for batch in self.batches)


def work_of(plan: Forecaster, setting: Setting) -> Work:
    """The work of a run with `setting`; with the messages of the run itself if `plan` was rehearsed."""
    if setting.replicas != 1:
        raise InputError(f"a simulation is of one group of workers, not of {setting.replicas}")
    sizes, target = plan.batches(setting), plan.target
    limits = target.limits_of(setting.channel)
    made: dict[int, BatchWork] = {}
    batches = []
    for number, samples in enumerate(sizes):
        # Of a sample all batches of a size are alike.
        key = number if plan.exact else -samples
        if key not in made:
            made[key] = _batch(plan, setting, samples, number, limits)
        batches.append(made[key])
    profile = plan.profile(sizes[0], 0)
    return Work(
        channel=setting.channel,
        workers=setting.workers,
        layers=len(profile.structure.layers),
        branching=setting.branching,
        in_flight=plan.under_way(setting),
        limits=limits,
        model=target.model,
        share=target.share(setting.memory_bytes),
        batches=tuple(batches),
        reads=_reads(plan, sizes),
        holds=profile.structure.layers[-1].rows > 0,
        plan_bytes=plan.plan_bytes,
        memory_bytes=plan.memory(setting),
        latency_seconds=target.store.latency_seconds,
    )


def _reads(plan: Forecaster, sizes: list[int]) -> Int64s:
    """Requests of each rank to the store for plan and inputs: counted in the rehearsal, else as the forecast has it."""
    if plan.noted is not None:
        return np.array([sum(worker.counters["gets"]) for worker in plan.noted.workers], np.int64)
    inputs = sum(store_reads(plan.profile(samples, k)) for k, samples in enumerate(sizes))
    return np.asarray(plan.plan_reads + inputs, np.int64)


def _batch(
    plan: Forecaster, setting: Setting, samples: int, number: int, limits: ChannelCapabilities | None
) -> BatchWork:
    profile = plan.profile(samples, number)
    made = batch_work(profile, samples, limits, plan.target.model, setting.channel, plan.under_way(setting))
    if plan.noted is None:
        return made
    # Of the whole run, noted with the first batch.
    known = {name: plan.noted.counted(name) * (number == 0) for name in ("rows_sent", "nonzeros_sent")}
    return replace(made, sent={**made.sent, **known})


def batch_work(
    profile: Profile, samples: int, limits: ChannelCapabilities | None, model: Model, channel: str, in_flight: int
) -> BatchWork:
    """The work of one batch, of `in_flight`."""
    layers, workers = profile.live.shape
    if limits is None:
        loads = loads_of(profile, None, None, None)
        return BatchWork(samples, loads, (None,) * layers, {}, profile.input_bytes)
    messages = as_sent(profile.messages)
    traffic, counts = _traffic(messages, (layers, workers), limits, channel)
    sent = {
        "rows_sent": _summed(messages, _live_rows(messages), (layers, workers)),
        "nonzeros_sent": _summed(messages, messages.nonzeros, (layers, workers)),
        "messages": counts.messages,
        "frames": counts.frames,
        "publishes": counts.publishes,
        "bytes_sent": counts.bytes_sent,
        "blocks_sent": counts.blocks,
    }
    loads = loads_of(profile, counts, limits, model.channel(channel), in_flight)
    return BatchWork(samples, loads, traffic, sent, profile.input_bytes)


def _live_rows(messages: Messages) -> Float64s:
    """Rows with any nonzero, if nonzeros lie at random among rows and live samples."""
    places = np.maximum(messages.rows * messages.live, 1e-9)
    density = np.minimum(messages.nonzeros / places, 1.0)
    return np.asarray(messages.rows * (1 - (1 - density) ** messages.live), np.float64)


def _summed(messages: Messages, values: Float64s, shape: tuple[int, ...]) -> Int64s:
    index = (messages.layer - 1) * shape[1] + messages.source
    found = np.bincount(index, values, math.prod(shape))
    return np.rint(found).astype(np.int64).reshape(shape)


def _traffic(
    messages: Messages, shape: tuple[int, int], limits: ChannelCapabilities, channel: str
) -> tuple[tuple[LayerTraffic | None, ...], Counts]:
    layers, workers = shape
    frames = frames_of(messages, workers, limits)
    publishes = publishes_of(frames, limits)
    counts = counts_of(messages, frames, publishes, shape)
    beyond = beyond_front(frames, workers) if channel == "object" else None
    edges = np.searchsorted(frames.group, np.arange(0, layers * workers + 1))
    publish_edges = np.searchsorted(publishes.group, np.arange(0, layers * workers + 1))
    carried = np.bincount(publishes.of_frame, frames.size, publishes.group.size)
    leaves = publishes.after / np.diff(edges)[publishes.group] if publishes.group.size else np.empty(0)
    made: list[LayerTraffic | None] = []
    for k in range(layers):
        bounds = edges[k * workers : (k + 1) * workers + 1]
        start, stop = int(bounds[0]), int(bounds[-1])
        if start == stop:
            made.append(None)
            continue
        own = publish_edges[k * workers : (k + 1) * workers + 1]
        source = frames.group[start:stop] - k * workers
        target = frames.target[start:stop]
        order = np.lexsort((source, target))
        place = np.empty(order.size, np.int32)
        place[order] = np.arange(order.size, dtype=np.int32)
        far = beyond[start:stop][order] if beyond is not None else None
        made.append(
            LayerTraffic(
                first=(bounds - start).tolist(),
                target=target.astype(np.int32),
                body=(frames.size[start:stop] - HEADER_BYTES).astype(np.int32),
                source=source[order].astype(np.int32),
                place=place,
                publish=(publishes.of_frame[start:stop] - own[source]).astype(np.int32),
                first_publish=(own - own[0]).tolist(),
                size=carried[own[0] : own[-1]].astype(np.float64),
                leaves=np.asarray(leaves[own[0] : own[-1]], np.float64),
                arrivals=np.searchsorted(target[order], np.arange(workers + 1)).tolist(),
                single=np.unique(source * workers + target).size == order.size,
                beyond=far if far is not None and far.any() else None,
            )
        )
    return tuple(made), counts
