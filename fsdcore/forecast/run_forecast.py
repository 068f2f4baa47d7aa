"""The forecast of a run: counters, memory, seconds and dollars, before anything is started."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from fsdcore.capabilities import ChannelCapabilities
from fsdcore.config import RunSettings
from fsdcore.cost import Bill, Usage, bill
from fsdcore.forecast.counts import Counts, count
from fsdcore.forecast.memory import memory_bytes
from fsdcore.forecast.model import ChannelModel, Model
from fsdcore.forecast.profile import Floats, Profile
from fsdcore.forecast.timing import Loads, Timeline, timeline
from fsdcore.prices import PriceList
from fsdcore.record import COUNTERS
from fsdcore.session import batches_under_way, default_batch_size

__all__ = ["Forecast", "Forecaster", "Setting", "Target"]

# What a worker reads of an object at first, and of a plan at a time.
_FRONT, _PLAN_READ = 256 * 1024, 16 << 20
# The client looks this often whether the run is done, after a few quick looks; workers for an abort.
_CLIENT_LOOK_SECONDS, _FIRST_LOOKS, _ABORT_LOOK_SECONDS = 0.1, 10, 0.25
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
    in_flight: int = RunSettings.in_flight


@dataclass(frozen=True)
class Target:
    """Where to run: the limits of each channel, how fast it is, and what it costs with which options."""

    limits: Mapping[str, ChannelCapabilities]
    model: Model
    prices: PriceList
    options: Mapping[str, str] = field(default_factory=dict)

    def share(self, memory: int) -> float:
        """Of one vCPU, what a worker's thread gets."""
        return min(1.0, self.prices.tariff.compute.vcpus_of(memory))

    def limits_of(self, channel: str) -> ChannelCapabilities | None:
        """The limits of a channel; None for the serial variant, which has none."""
        return None if channel == "serial" else self.limits[channel]


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What a run will do, if its samples are like those that were looked at.

    `counters`: as a record has them. `memory_bytes`: the peak of each rank, an upper estimate;
    `memory_limit_bytes`: what a worker has. `phases`: seconds summed over workers. `exact`: the messages are those of
    the run itself.
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

    def _repr_html_(self) -> str:
        from fsdcore.report.notebook import forecast_card

        return forecast_card(self)

    def to_json(self) -> str:
        """The forecast as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()


class Forecaster:
    """Forecasts of one plan on one target.

    `profile` is that of a sample of the input, which has `samples` in all. `exact`, if given, are the profiles of the
    run's own batches, in order: then counters of messages are those of the run.
    """

    def __init__(
        self,
        profile: Profile,
        samples: int,
        target: Target,
        exact: Sequence[Profile] = (),
    ) -> None:
        self._profile, self._samples, self._target = profile, samples, target
        self._exact = tuple(exact)
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
    def default_batch_size(self) -> int:
        """What a run would choose by itself."""
        return default_batch_size(self._profile.structure.largest_rows, self._samples)

    def batches(self, setting: Setting) -> list[int]:
        """The samples of each batch of one group."""
        group = -(-self._samples // setting.replicas)
        size = min(setting.batch_size, group)
        full, rest = divmod(group, size)
        return [size] * full + [rest] * (rest > 0)

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

    def memory(self, setting: Setting) -> Floats:
        """Bytes that each rank needs."""
        batches, largest = self.batches(setting), self._profile.structure.largest_rows
        size = max(batches)
        under_way = batches_under_way(largest, size, len(batches), setting.in_flight) if size else 1
        return memory_bytes(self._batch(size, 0), self._target.model.compute.runtime_bytes, under_way)

    def least(self, setting: Setting) -> tuple[float, float]:
        """Seconds and dollars that `setting` cannot be below: as if workers only computed."""
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
        return self._timed(setting.channel, setting.branching, tuple(self.batches(setting)), share)

    def _batch(self, samples: int, number: int) -> Profile:
        return self._exact[number] if self._exact else self._scaled(samples)

    def _count(self, channel: str, samples: int, number: int) -> Counts:
        limits = self._target.limits_of(channel)
        if limits is None:
            raise AssertionError("the serial variant sends nothing")
        return count(self._batch(samples, number), limits)

    def _counts(self, channel: str, samples: int, number: int) -> Counts:
        # Of a sample all batches of a size are alike.
        return self._counted(channel, samples, number if self._exact else 0)

    def _time(self, channel: str, branching: int, batches: tuple[int, ...], share: float) -> Timeline:
        """Of very many equal batches three are followed; each of the rest takes what the third took."""
        model = self._target.model
        wire = None if channel == "serial" else model.channel(channel)
        last = len(batches) - 1
        followed = range(len(batches)) if last < 4 else (0, 1, 2, last)
        loads = [self._loads(channel, batches[number], number) for number in followed]
        plan = self._profile.structure.memory_bytes.astype(np.float64) * np.float64(_STORED_SHARE)
        if last < 4:
            return timeline(loads, model, wire, branching, share, plan)
        short = timeline([*loads[:2], loads[3]], model, wire, branching, share, plan)
        long = timeline(loads, model, wire, branching, share, plan)
        return _extended(short, long, last - 3)

    def _loads(self, channel: str, samples: int, number: int) -> Loads:
        profile = self._batch(samples, number)
        none = np.zeros(profile.live.shape)
        limits = self._target.limits_of(channel)
        if limits is None:
            return Loads(profile.local, profile.remote, *(none,) * 7, None, profile.outputs)
        counts, wire = self._counts(channel, samples, number), self._target.model.channel(channel)
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
            receives=_receives(counts, limits, wire),
            bytes_out=counts.bytes_sent.astype(np.float64),
            bytes_in=counts.bytes_in.astype(np.float64),
            edges=tuple((m.source[a:b], m.target[a:b]) for a, b in itertools.pairwise(starts)),
            output_bytes=profile.outputs,
        )

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
            self._add_traffic(totals, setting.channel, batches)
        totals |= self._requests(setting, timed, totals)
        totals["invocations"] = workers
        return {name: value * setting.replicas for name, value in totals.items()}

    def _add_traffic(self, totals: dict[str, float], channel: str, batches: list[int]) -> None:
        limits = self._target.limits[channel]
        wire = self._target.model.channel(channel)
        for number, samples in enumerate(batches):
            counts = self._counts(channel, samples, number)
            totals["nonzeros_sent"] += float(self._batch(samples, number).messages.nonzeros.sum())
            for name in ("messages", "frames", "publishes", "bytes_sent"):
                totals[name] += float(getattr(counts, name).sum())
            totals["blocks_sent"] += float(counts.blocks.sum())
            totals["receives"] += float(_receives(counts, limits, wire).sum())
        totals["acknowledges"] = totals["receives"]

    def _requests(self, setting: Setting, timed: Timeline, totals: Mapping[str, float]) -> dict[str, float]:
        """Requests to the store: plan, inputs, outputs, claims; and those of the object channel."""
        batches, structure = self.batches(setting), self._profile.structure
        holding = int(np.count_nonzero(structure.layers[-1].rows))
        stored = structure.memory_bytes * _STORED_SHARE
        plan = np.where(stored <= _FRONT, 1, 1 + np.ceil(stored / _PLAN_READ))
        inputs = sum(1 + (self._batch(samples, k).input_bytes > _FRONT) for k, samples in enumerate(batches))
        gets = float(plan.sum()) + setting.workers * inputs + 1 + holding * len(batches)
        puts = setting.workers + holding * len(batches) + len(batches)
        looks = _CLIENT_LOOK_SECONDS + self._target.model.store.get_seconds
        lists = _FIRST_LOOKS + timed.wall_seconds / looks
        if setting.channel == "object":
            puts += int(totals["publishes"])
            gets += self._object_gets(setting, timed, totals)
        return {"puts": float(puts), "gets": gets, "lists": float(math.ceil(lists))}

    def _object_gets(self, setting: Setting, timed: Timeline, totals: Mapping[str, float]) -> float:
        """One for each message, one more for a part beyond the front, and looks for what is not there yet."""
        wire = self._target.model.channel("object")
        beyond = sum(_beyond(self._batch(samples, k)) for k, samples in enumerate(self.batches(setting)))
        waited = float(timed.wait.sum())
        looks = waited / wire.poll_seconds if wire.poll_seconds else 0.0
        return math.ceil(totals["receives"] + beyond + looks + waited / _ABORT_LOOK_SECONDS)


def _receives(counts: Counts, limits: ChannelCapabilities, wire: ChannelModel) -> Floats:
    """Receives that bring something. Where each must be asked for by name, one for each message."""
    if wire.poll_seconds:
        return counts.messages_in.astype(np.float64)
    together = np.minimum(limits.max_receive_frames, 1 + wire.gathering * counts.frames_in)
    return np.asarray(np.ceil(counts.frames_in / together), np.float64)


def _beyond(profile: Profile) -> int:
    """Parts of objects that do not lie in the front, which is read at once."""
    m = profile.messages
    group = m.layer * profile.structure.workers + m.source
    end = np.cumsum(m.body)
    first = np.searchsorted(group, group)
    before = np.where(first > 0, end[first - 1], 0.0)
    return int(np.count_nonzero(end - before > _FRONT))


def _extended(short: Timeline, long: Timeline, more: int) -> Timeline:
    def reach(a: Floats, b: Floats) -> Floats:
        return b + more * (b - a)

    return Timeline(
        worker_seconds=reach(short.worker_seconds, long.worker_seconds),
        billed_seconds=reach(short.billed_seconds, long.billed_seconds),
        wait=reach(short.wait, long.wait),
        phases={name: spent + more * (spent - short.phases[name]) for name, spent in long.phases.items()},
        wall_seconds=long.wall_seconds + more * (long.wall_seconds - short.wall_seconds),
    )
