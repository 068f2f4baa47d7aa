"""The forecast of a run: counters, memory, seconds and dollars, before anything is started."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from fsdcore.arrays import Float64s
from fsdcore.client.batching import Batches, batches_of, default_batch_size
from fsdcore.contracts.limits import ChannelCapabilities, StoreCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.estimate.bill import Bill, PriceList, Usage, bill
from fsdcore.estimate.profile import Profile, memory_bytes
from fsdcore.estimate.rehearsal import Rehearsal
from fsdcore.estimate.speeds import ChannelModel, Model
from fsdcore.estimate.timing import Loads, Timeline, found_after, looks, reading, timeline, writing
from fsdcore.estimate.traffic import Counts, as_sent, beyond_front, count, frames_of
from fsdcore.messages.object_channel import ABORT_CHECK_SECONDS
from fsdcore.messages.segments import FRONT_BYTES, READ_BYTES
from fsdcore.record.record import COUNTERS, Record

# A stored plan is compressed; of its bytes in memory, this share.
_STORED_SHARE = 0.4


class Setting(NamedTuple):
    """How to run: `channel` is ``serial`` for one worker. `batch_size` samples at a time, `in_flight` times at once.

    `replicas` independent groups of `workers` share the samples.
    """

    channel: str
    workers: int
    memory_bytes: int
    branching: int
    batch_size: int
    replicas: int = 1
    in_flight: int = RunSettings().in_flight


@dataclass(frozen=True)
class Target:
    """Where to run: limits of channels and store, speeds, prices, and the options of the prices."""

    limits: Mapping[str, ChannelCapabilities]
    model: Model
    prices: PriceList
    options: Mapping[str, str] = field(default_factory=dict)
    store: StoreCapabilities = field(default_factory=StoreCapabilities)

    def share(self, memory: int) -> float:
        """The share of a vCPU that a worker's thread gets."""
        return min(1.0, self.prices.tariff.compute.vcpus_of(memory))

    def limits_of(self, channel: str) -> ChannelCapabilities | None:
        """The limits of a channel; None for the serial variant, which has none."""
        return None if channel == "serial" else self.limits[channel]


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a run will do, if its samples are like those that were looked at.

    `counters`: as in a record. `memory_bytes`: the peak of each rank, an upper estimate.
    `memory_limit_bytes`: the memory of a worker. `phases`: seconds summed over workers. `exact`: the messages are those
    of the run itself.
    """

    prices: str
    model: str
    channel: str
    workers: int
    replicas: int
    branching: int
    batch_size: int
    samples: int
    batches: int
    exact: bool
    counters: dict[str, float]
    memory_bytes: tuple[int, ...]
    memory_limit_bytes: int
    seconds_limit: float
    phases: dict[str, float]
    worker_seconds: float
    wall_seconds: float
    bill: Bill

    @property
    def dollars(self) -> float:
        """The whole bill."""
        return self.bill.total

    @property
    def fits(self) -> bool:
        """Whether every worker has the memory and the time it needs."""
        return max(self.memory_bytes) <= self.memory_limit_bytes and self.wall_seconds <= self.seconds_limit

    def differences(self, record: Record, billed: Bill | None = None) -> list[str]:
        """How the run of `record`, with its bill, differs from the one that was forecast, in words."""
        pairs = [
            ("channel", self.channel, record.channel),
            ("workers", f"{self.workers:,}", f"{record.workers:,}"),
            ("samples", f"{self.samples:,}", f"{record.samples:,}"),
            ("batches", f"{self.batches:,}", f"{record.batches:,}"),
        ]
        if billed is not None:
            pairs.append(("prices", self.bill.prices, billed.prices))
        return [f"{name} {expected}, not {ran}" for name, expected, ran in pairs if expected != ran]

    def to_json(self) -> str:
        """The forecast as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()


class Forecaster:
    """Forecasts of one plan on one target.

    `profile` is that of a sample of the input, which has `samples` in all. `exact`, if given, are the profiles of the
    run's own batches, in order: then counters of messages are those of the run; `noted` is what else was noted of it.
    """

    def __init__(
        self,
        profile: Profile,
        samples: int,
        target: Target,
        exact: Sequence[Profile] = (),
        noted: Rehearsal | None = None,
    ) -> None:
        self._profile, self._samples, self._target = profile, samples, target
        self._exact = tuple(exact)
        self.noted = noted
        self._counted = lru_cache(maxsize=64)(self._count)
        self._scaled = lru_cache(maxsize=64)(profile.scaled)
        self._timed = lru_cache(maxsize=4096)(self._time)

    @property
    def workers(self) -> int:
        """The workers of the plan."""
        return self._profile.structure.workers

    @property
    def samples(self) -> int:
        """The samples of the whole input."""
        return self._samples

    @property
    def target(self) -> Target:
        """Where the plan would run."""
        return self._target

    @property
    def exact(self) -> bool:
        """Whether the messages are those of the run itself."""
        return bool(self._exact)

    @property
    def plan_bytes(self) -> Float64s:
        """What the stored plan of each rank takes."""
        return np.asarray(self._profile.structure.memory_bytes * _STORED_SHARE, np.float64)

    @property
    def plan_reads(self) -> Float64s:
        """Requests that read it."""
        stored = self.plan_bytes
        return np.asarray(np.where(stored <= FRONT_BYTES, 1, 1 + np.ceil(stored / READ_BYTES)), np.float64)

    @property
    def default_batch_size(self) -> int:
        """What a run would choose by itself."""
        return default_batch_size(self._profile.structure.largest_rows, self._samples)

    def batches(self, setting: Setting) -> list[int]:
        """The samples of each batch of one group."""
        return self._batches(setting).sizes

    def _batches(self, setting: Setting) -> Batches:
        group = -(-self._samples // setting.replicas)
        size = min(setting.batch_size, group)
        structure = self._profile.structure
        return batches_of(structure.largest_rows, group, size, setting.in_flight, workers=setting.workers)

    def forecast(self, setting: Setting) -> Forecast:
        """What a run with `setting` does; `InputError` for a channel that model or prices do not know."""
        timed = self.timeline(setting)
        batches = self.batches(setting)
        counters = self.counters(setting, timed)
        every = np.tile(timed.billed_seconds, setting.replicas)
        priced = self._bill(setting, counters, every.tolist())
        shape = self._target.prices.tariff.compute
        return Forecast(
            prices=self._target.prices.name,
            model=self._target.model.name,
            channel=setting.channel,
            workers=setting.workers,
            replicas=setting.replicas,
            branching=setting.branching,
            batch_size=batches[0],
            samples=self._samples,
            batches=len(batches) * setting.replicas,
            exact=bool(self._exact),
            counters=counters,
            memory_bytes=tuple(math.ceil(each) for each in self.memory(setting)),
            memory_limit_bytes=setting.memory_bytes,
            seconds_limit=shape.max_seconds,
            phases={name: spent * setting.replicas for name, spent in timed.phases.items()},
            worker_seconds=float(every.sum()),
            wall_seconds=timed.wall_seconds,
            bill=priced,
        )

    def _bill(self, setting: Setting, counters: Mapping[str, float], seconds: Sequence[float]) -> Bill:
        target = self._target
        vcpus = target.prices.tariff.compute.vcpus_of(setting.memory_bytes)
        usage = Usage(setting.channel, counters, seconds, setting.memory_bytes, vcpus)
        return bill(usage, target.prices, target.options)

    def under_way(self, setting: Setting) -> int:
        """How many batches are in flight: as many as asked for, or as memory allows."""
        return self._batches(setting).in_flight

    def memory(self, setting: Setting) -> Float64s:
        """Bytes that each rank needs."""
        largest, runtime = self.profile(max(self.batches(setting)), 0), self._target.model.compute.runtime_bytes
        return memory_bytes(largest, runtime, self.under_way(setting))

    def least(self, setting: Setting) -> tuple[float, float]:
        """A lower bound of seconds and dollars for `setting`, as if workers only computed."""
        model, batches = self._target.model, self.batches(setting)
        factor = sum(batches) / max(self._profile.samples, 1e-9)
        work = float((self._profile.local + self._profile.remote).sum(axis=0).max()) * factor
        share = self._target.share(setting.memory_bytes)
        seconds = work / (model.compute.multiply_rate * share)
        billed = float((self._profile.local + self._profile.remote).sum()) * factor
        every = billed / (model.compute.multiply_rate * share) + setting.workers * model.compute.billed_start_seconds
        nothing = dict.fromkeys(COUNTERS, 0.0) | {"invocations": float(setting.workers * setting.replicas)}
        cost = self._bill(setting, nothing, [every * setting.replicas])
        return model.compute.start_seconds + seconds, cost.total

    def timeline(self, setting: Setting) -> Timeline:
        """Seconds of one group."""
        share = self._target.share(setting.memory_bytes)
        batches, in_flight = self.batches(setting), self.under_way(setting)
        timed = self._timed(setting.channel, setting.branching, tuple(batches), share, in_flight)
        return replace(timed, wall_seconds=self._until_read(batches, timed.wall_seconds))

    def _until_read(self, batches: Sequence[int], workers_seconds: float) -> float:
        """From the client's first request to its last, where the workers take `workers_seconds` of them."""
        target, profiles = self._target, [self.profile(samples, k) for k, samples in enumerate(batches)]
        store, holding = target.model.store, int(np.count_nonzero(self._profile.structure.layers[-1].rows))
        begun = writing([profile.input_bytes for profile in profiles], store)
        outputs = sum(float(profile.outputs.sum()) for profile in profiles)
        found = found_after(workers_seconds, target.store.latency_seconds, store)
        return begun + found + reading(holding * len(batches), outputs, store)

    def profile(self, samples: int, number: int) -> Profile:
        """Of the batch of that number, which has so many samples."""
        return self._exact[number] if self._exact else self._scaled(samples)

    def _count(self, channel: str, samples: int, number: int) -> Counts:
        limits = self._target.limits_of(channel)
        if limits is None:
            raise AssertionError("the serial variant sends nothing")
        return count(self.profile(samples, number), limits)

    def _counts(self, channel: str, samples: int, number: int) -> Counts:
        # Of a sample all batches of a size are alike.
        return self._counted(channel, samples, number if self._exact else 0)

    def _time(self, channel: str, branching: int, batches: tuple[int, ...], share: float, in_flight: int) -> Timeline:
        """Of very many equal batches some are followed; each of the rest takes what one more of them takes."""
        model, last = self._target.model, len(batches) - 1
        wire = None if channel == "serial" else model.channel(channel)
        few = 2 * in_flight

        def followed(numbers: Sequence[int]) -> Timeline:
            loads = [self._loads(channel, batches[number], number, in_flight) for number in numbers]
            return timeline(loads, model, wire, branching, share, self.plan_bytes, in_flight)

        if last <= 2 * few:
            return followed(range(len(batches)))
        short, long = followed([*range(few), last]), followed([*range(2 * few), last])
        return _extended(short, long, last - 2 * few, few)

    def _loads(self, channel: str, samples: int, number: int, in_flight: int) -> Loads:
        limits = self._target.limits_of(channel)
        profile = self.profile(samples, number)
        if limits is None:
            return loads_of(profile, None, None, None)
        counts, wire = self._counts(channel, samples, number), self._target.model.channel(channel)
        return loads_of(profile, counts, limits, wire, in_flight)

    def counters(self, setting: Setting, timed: Timeline) -> dict[str, float]:
        """The counters of all groups together, of what a record counts: not the records that are sent at the end."""
        batches, workers = self.batches(setting), setting.workers
        totals = dict.fromkeys(
            (
                "nonzeros_sent",
                "messages",
                "frames",
                "publishes",
                "bytes_sent",
                "blocks_sent",
                "receives",
                "acknowledges",
            ),
            0.0,
        )
        if setting.channel != "serial":
            self._add_traffic(totals, setting.channel, batches, self.under_way(setting))
        totals |= self._requests(setting, timed, totals)
        totals["invocations"] = workers
        return {name: value * setting.replicas for name, value in totals.items()}

    def _add_traffic(self, totals: dict[str, float], channel: str, batches: list[int], in_flight: int) -> None:
        limits = self._target.limits[channel]
        wire = self._target.model.channel(channel)
        for number, samples in enumerate(batches):
            counts = self._counts(channel, samples, number)
            totals["nonzeros_sent"] += float(self.profile(samples, number).messages.nonzeros.sum())
            for name in ("messages", "frames", "publishes", "bytes_sent"):
                totals[name] += float(getattr(counts, name).sum())
            totals["blocks_sent"] += float(counts.blocks.sum())
            totals["receives"] += float(_receives(counts, limits, wire, in_flight).sum())
        totals["acknowledges"] = totals["receives"]

    def _requests(self, setting: Setting, timed: Timeline, totals: Mapping[str, float]) -> dict[str, float]:
        """Requests to the store: plan, inputs, outputs, claims; and those of the object channel."""
        batches, structure = self.batches(setting), self._profile.structure
        holding = int(np.count_nonzero(structure.layers[-1].rows))
        inputs = sum(store_reads(self.profile(samples, k)) for k, samples in enumerate(batches))
        looked = looks(0.0, timed.wall_seconds, self._target.store.latency_seconds, self._target.model.store)
        gets = float(self.plan_reads.sum()) + setting.workers * inputs + looked.gets + holding * len(batches)
        puts = setting.workers + holding * len(batches) + len(batches)
        if setting.channel == "object":
            puts += int(totals["publishes"])
            gets += self._object_gets(setting, timed, totals)
        return {"puts": float(puts), "gets": gets, "lists": float(looked.lists)}

    def _object_gets(self, setting: Setting, timed: Timeline, totals: Mapping[str, float]) -> float:
        """One for each message, one more for a part beyond the front, and looks for what is not there yet."""
        wire = self._target.model.channel("object")
        limits = self._target.limits["object"]
        beyond = sum(
            float(_beyond(self.profile(samples, k), limits).sum()) for k, samples in enumerate(self.batches(setting))
        )
        waited = float(timed.wait.sum())
        looks = waited / wire.poll_seconds if wire.poll_seconds else 0.0
        return math.ceil(totals["receives"] + beyond + looks + waited / ABORT_CHECK_SECONDS)


def store_reads(profile: Profile) -> int:
    """Requests in which a worker reads its inputs of a batch."""
    return 1 + int(profile.input_bytes > FRONT_BYTES)


def loads_of(
    profile: Profile,
    counts: Counts | None,
    limits: ChannelCapabilities | None,
    wire: ChannelModel | None,
    in_flight: int = 1,
) -> Loads:
    """What a batch makes each rank do, one of `in_flight`; `counts`, `limits` and `wire` are None for the serial
    variant."""
    none = np.zeros(profile.live.shape)
    if counts is None or limits is None or wire is None:
        return Loads(profile.local, profile.remote, *(none,) * 7, None, profile.outputs)
    m = profile.messages
    values = m.rows * m.live
    encoded, decoded = np.zeros_like(none), np.zeros_like(none)
    np.add.at(encoded, (m.layer - 1, m.source), values)
    np.add.at(decoded, (m.layer - 1, m.target), values)
    starts = np.searchsorted(m.layer, np.arange(1, profile.live.shape[0] + 2))
    return Loads(
        local=profile.local,
        remote=profile.remote,
        encoded=encoded,
        decoded=decoded,
        messages=(counts.messages + counts.messages_in).astype(np.float64),
        sends=np.ceil(counts.publishes / limits.publishes_in_flight),
        receives=_receives(counts, limits, wire, in_flight) + _beyond(profile, limits) * bool(wire.poll_seconds),
        bytes_out=counts.bytes_sent.astype(np.float64),
        bytes_in=counts.bytes_in.astype(np.float64),
        edges=tuple((m.source[a:b], m.target[a:b]) for a, b in itertools.pairwise(starts)),
        output_bytes=profile.outputs,
    )


def _receives(counts: Counts, limits: ChannelCapabilities, wire: ChannelModel, in_flight: int) -> Float64s:
    """Receives that bring something, with so many batches whose frames come. Where each must be asked for by name,
    one for each message."""
    if wire.poll_seconds:
        return counts.messages_in.astype(np.float64)
    together = np.minimum(limits.max_receive_frames, 1 + wire.gathering * in_flight * counts.frames_in)
    return np.asarray(np.ceil(counts.frames_in / together), np.float64)


def _beyond(profile: Profile, limits: ChannelCapabilities) -> Float64s:
    """By layer and rank that reads, parts of objects that do not lie in the front, which is read at once."""
    workers, found = profile.structure.workers, np.zeros(profile.live.shape)
    frames = frames_of(as_sent(profile.messages), workers, limits)
    np.add.at(found, (frames.group // workers, frames.target), beyond_front(frames, workers))
    return found


def _extended(short: Timeline, long: Timeline, more: int, between: int) -> Timeline:
    """`more` batches beyond `long`, which has `between` more than `short`."""
    times = more / between

    def reach(a: Float64s, b: Float64s) -> Float64s:
        return np.asarray(b + times * (b - a), np.float64)

    return Timeline(
        worker_seconds=reach(short.worker_seconds, long.worker_seconds),
        billed_seconds=reach(short.billed_seconds, long.billed_seconds),
        wait=reach(short.wait, long.wait),
        phases={name: spent + times * (spent - short.phases[name]) for name, spent in long.phases.items()},
        wall_seconds=long.wall_seconds + times * (long.wall_seconds - short.wall_seconds),
    )
