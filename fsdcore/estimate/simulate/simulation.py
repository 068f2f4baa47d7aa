"""A simulation: the same run several times, each with its own seed; seconds, dollars, and what they are spent on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np

from fsdcore.errors import InputError
from fsdcore.estimate.bill import Bill, PriceList, Usage, bill
from fsdcore.estimate.simulate.conditions import STEADY, Conditions, check_conditions
from fsdcore.estimate.simulate.engine import simulate_once
from fsdcore.estimate.simulate.ledger import Ledger, worker_seconds
from fsdcore.estimate.simulate.work import Work
from fsdcore.estimate.speeds import Model
from fsdcore.estimate.timing import found_after, reading, timeline, writing
from fsdcore.record.record import Record, Setting

PERCENTILES = (50, 90, 99)
# Fast enough that it no longer counts.
_FREE = 1e18


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated run: `wall_seconds` as its client sees them, `worker_seconds` billed to all workers together,
    `launched` when the last worker began, `refused` calls that were repeated."""

    seed: int
    wall_seconds: float
    worker_seconds: float
    launched: float
    refused: int
    dollars: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs of several seeds have in common. `wall_seconds`, `dollars`: by percentile.

    `forecast_seconds`: what the forecast makes of the same work. `shares`: of all workers' seconds, by activity, in
    the first run; `gains`: by how many seconds that run would be shorter without what is named; `bill`: of the first
    run.
    """

    conditions: str
    model: str
    channel: str
    workers: int
    layers: int
    batches: int
    samples: int
    runs: tuple[Run, ...]
    wall_seconds: dict[str, float]
    dollars: dict[str, float]
    forecast_seconds: float
    shares: dict[str, float]
    gains: dict[str, float]
    bill: Bill

    def to_json(self) -> str:
        """The summary as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()


@dataclass(frozen=True)
class Billing:
    """What a run costs: prices, their options, and what each worker has."""

    prices: PriceList
    memory_bytes: int
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Simulation:
    """Runs of `work` under `conditions`. `seed` and what is given decide all of it, to the byte of its record."""

    def __init__(self, work: Work, billing: Billing, conditions: Conditions = STEADY) -> None:
        check_conditions(conditions)
        self._work, self._billing, self._conditions = work, billing, conditions

    def record(self, seed: int = 0, traced: bool = False) -> Record:
        """The record of one run, as the run itself would have written it; `traced` with the spans of its workers.

        Of more than 2,048 workers it does not say who sent to whom and who waited for whom.
        """
        ledger, _ = simulate_once(self._work, self._conditions, seed, traced)
        return ledger.record(f"{seed:016x}", f"simulated {self._work.model.name}", self._settings())

    def _settings(self) -> dict[str, Setting]:
        work = self._work
        return {
            "channel": work.channel,
            "workers": work.workers,
            "branching": work.branching,
            "in_flight": work.in_flight,
            "batch_size": work.batches[0].samples,
            "memory_mb": self._billing.memory_bytes >> 20,
            "billed_start_seconds": work.model.compute.billed_start_seconds,
            "conditions": self._conditions.name,
        }

    def summary(
        self, seeds: Sequence[int], told: Callable[[int], None] | None = None, explained: bool = True
    ) -> Summary:
        """All seeds, one after another; `told` hears how many are done. `InputError` if there are none.

        Unless `explained`, what dominates is left out, which takes the time of several runs.
        """
        if not seeds:
            raise InputError("a simulation needs at least one seed")
        runs, first = [], None
        for number, seed in enumerate(seeds, start=1):
            done = _Done(self._work, self._conditions, self._billing, seed)
            runs.append(done.run)
            first = first or done
            if told is not None:
                told(number)
        assert first is not None
        work = self._work
        return Summary(
            conditions=self._conditions.name,
            model=work.model.name,
            channel=work.channel,
            workers=work.workers,
            layers=work.layers,
            batches=len(work.batches),
            samples=work.samples,
            runs=tuple(runs),
            wall_seconds=_percentiles(run.wall_seconds for run in runs),
            dollars=_percentiles(run.dollars for run in runs),
            forecast_seconds=forecast_seconds(work),
            shares=_shares(first.ledger),
            gains=gains(work, self._conditions, seeds[0], first.run.wall_seconds) if explained else {},
            bill=first.bill,
        )


class _Done:
    """One run and what it costs."""

    def __init__(self, work: Work, conditions: Conditions, billing: Billing, seed: int) -> None:
        self.ledger, refused = simulate_once(work, conditions, seed)
        self._work, self._billing = work, billing
        self.run = Run(
            seed=seed,
            wall_seconds=round(self.ledger.wall_seconds, 6),
            worker_seconds=round(sum(self._seconds), 6),
            launched=round(max(self.ledger.started), 6),
            refused=refused,
            dollars=self.bill.total,
        )

    @cached_property
    def _seconds(self) -> list[float]:
        billed = self._work.model.compute.billed_start_seconds
        return [spent + billed for spent in worker_seconds(self.ledger)]

    @cached_property
    def bill(self) -> Bill:
        billing = self._billing
        vcpus = billing.prices.tariff.compute.vcpus_of(billing.memory_bytes)
        usage = Usage(self._work.channel, self.ledger.totals(), self._seconds, billing.memory_bytes, vcpus)
        return bill(usage, billing.prices, billing.options)


def _percentiles(values: Iterable[float]) -> dict[str, float]:
    listed = list(values)
    return {f"p{each}": float(np.percentile(listed, each)) for each in PERCENTILES}


def _shares(ledger: Ledger) -> dict[str, float]:
    spent = ledger.total_seconds()
    total = max(sum(worker_seconds(ledger)), 1e-12)
    return {name: seconds / total for name, seconds in spent.items()}


def forecast_seconds(work: Work) -> float:
    """What the forecast makes of the same work, from the client's first request to its last."""
    store, loads = work.model.store, [batch.loads for batch in work.batches]
    wire = None if work.limits is None else work.model.channel(work.channel)
    timed = timeline(loads, work.model, wire, work.branching, work.share, work.plan_bytes, work.in_flight)
    begun = writing([batch.input_bytes for batch in work.batches], store)
    outputs = sum(float(each.output_bytes.sum()) for each in loads)
    objects = int(np.count_nonzero(work.holds)) * len(loads)
    return begun + found_after(timed.wall_seconds, work.latency_seconds, store) + reading(objects, outputs, store)


# What dominates ------------------------------------------------------------------------------------------------


def gains(work: Work, conditions: Conditions, seed: int, wall_seconds: float) -> dict[str, float]:
    """By how much a run would be shorter if one thing cost nothing, the largest first.

    Overlapping delays are not attributed to any of them, so the numbers need not sum to the whole.
    """
    found = {}
    for name, model in _without(work.model).items():
        changed = dataclasses.replace(work, model=model)
        found[name] = wall_seconds - simulate_once(changed, conditions, seed)[0].wall_seconds
    if conditions != STEADY:
        found["chance"] = wall_seconds - simulate_once(work, STEADY, seed)[0].wall_seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _without(model: Model) -> dict[str, Model]:
    """The model with one thing free in each."""
    compute, replace = model.compute, msgspec.structs.replace
    none = dict.fromkeys(("invoke_seconds", "start_seconds"), 0.0)
    fast = {"multiply_rate": _FREE, "codec_rate": _FREE, "message_seconds": 0.0}
    return {
        "computing": replace(model, compute=replace(compute, **fast)),
        "starts": replace(model, compute=replace(compute, **none)),
        "channel latency": _channels(model, send_seconds=0.0, delivery_seconds=0.0, receive_seconds=0.0),
        "channel bandwidth": _channels(model, bytes_per_second=_FREE),
        "store": replace(model, store=replace(model.store, put_seconds=0.0, get_seconds=0.0, bytes_per_second=_FREE)),
    }


def _channels(model: Model, **changes: float) -> Model:
    replace = msgspec.structs.replace
    return replace(model, channels={kind: replace(each, **changes) for kind, each in model.channels.items()})
