"""The cost model: counters and seconds in, line items out (paper, section IV), for any provider and channel.

What a provider bills is a tariff (`fsdcore.prices`), made of the meters below; the same code bills a run that was
counted and prices one that is forecast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from fsdcore.prices import PriceList, TariffLine
from fsdcore.record import BLOCK_BYTES, Record

__all__ = ["METERS", "Bill", "BillLine", "Usage", "bill", "usage_of"]


class Usage(NamedTuple):
    """What a run used: `counters` as in a record, and the seconds of every worker.

    Counters may be numbers that are not whole, where they are expected values.
    """

    channel: str
    counters: Mapping[str, float]
    worker_seconds: Sequence[float]
    memory_bytes: int
    vcpus: float = 1.0


class BillLine(msgspec.Struct, frozen=True):
    """One item: `quantity` times `price` is `dollars`."""

    item: str
    quantity: float
    price: float
    dollars: float


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What a run costs, item by item, at the prices of `prices` of `date`; and what it leaves out."""

    prices: str
    date: str
    currency: str
    lines: tuple[BillLine, ...]
    not_counted: tuple[str, ...]

    @property
    def total(self) -> float:
        """The sum of all items."""
        return math.fsum(line.dollars for line in self.lines)

    def _repr_html_(self) -> str:
        from fsdcore.report.notebook import bill_card

        return bill_card(self)


def _seconds(usage: Usage, line: TariffLine) -> float:
    step = line.round_seconds
    if step == 0.0:
        return math.fsum(usage.worker_seconds)
    # A worker that took 0.3 s is not billed 0.4 s because 0.3 / 0.1 is a bit above 3.
    return math.fsum(step * math.ceil(round(seconds / step, 6)) for seconds in usage.worker_seconds)


def _memory_seconds(usage: Usage, line: TariffLine) -> float:
    return _seconds(usage, line) * usage.memory_bytes / line.unit_bytes


def _vcpu_seconds(usage: Usage, line: TariffLine) -> float:
    return _seconds(usage, line) * usage.vcpus


def _publish_steps(usage: Usage, line: TariffLine) -> float:
    """Started steps over all publishes: counted where the step is that of the record, else no more than they can be."""
    if line.step_bytes == BLOCK_BYTES and "blocks_sent" in usage.counters:
        return usage.counters["blocks_sent"]
    return _steps_at_most(usage.counters["publishes"], usage.counters["bytes_sent"], line.step_bytes)


def _receive_steps(usage: Usage, line: TariffLine) -> float:
    """Every receive is a step; the steps beyond the first are no more than the full steps of what came."""
    return usage.counters["receives"] + usage.counters["bytes_sent"] // line.step_bytes


def _steps_at_most(requests: float, size: float, step: int) -> float:
    return (size + requests * (step - 1)) // step


def _bytes_published(usage: Usage, line: TariffLine) -> float:
    return max(usage.counters["bytes_sent"], line.minimum_bytes * usage.counters["publishes"])


def _bytes_delivered(usage: Usage, line: TariffLine) -> float:
    return max(usage.counters["bytes_sent"], line.minimum_bytes * usage.counters["acknowledges"])


def _counter(*names: str) -> Callable[[Usage, TariffLine], float]:
    def meter(usage: Usage, line: TariffLine) -> float:
        del line
        return sum(usage.counters[name] for name in names)

    return meter


METERS: dict[str, Callable[[Usage, TariffLine], float]] = {
    "invocations": _counter("invocations"),
    "memory_seconds": _memory_seconds,
    "vcpu_seconds": _vcpu_seconds,
    "publishes": _counter("publishes"),
    "publish_steps": _publish_steps,
    "bytes_published": _bytes_published,
    "bytes_delivered": _bytes_delivered,
    "receives": _counter("receives"),
    "receive_steps": _receive_steps,
    "acknowledges": _counter("acknowledges"),
    "puts": _counter("puts"),
    "gets": _counter("gets"),
    "lists": _counter("lists"),
    "puts_and_lists": _counter("puts", "lists"),
}


def bill(usage: Usage, prices: PriceList, options: Mapping[str, str] | None = None) -> Bill:
    """What `usage` costs; `InputError` for a channel, option or item that `prices` do not know."""
    prices.check_channel(usage.channel)
    lines = []
    for line in prices.lines(usage.channel, prices.options(dict(options or {}))):
        quantity, price = METERS[line.meter](usage, line), prices.prices[line.price]
        lines.append(BillLine(line.item, quantity, price, quantity * price))
    return Bill(
        prices=prices.name,
        date=prices.date,
        currency=prices.currency,
        lines=tuple(lines),
        not_counted=prices.tariff.not_counted,
    )


def usage_of(record: Record, memory_bytes: int, vcpus: float = 1.0) -> Usage:
    """What a run used, from its record, had its workers `memory_bytes` each.

    The seconds before a worker's first line are in it: what cold starts took, or, of a simulated run, what the
    record's settings say.
    """
    told = record.settings.get("billed_start_seconds")
    before = float(told) if isinstance(told, int | float) else 0.0
    seconds = [worker.ended - worker.started + worker.start_seconds + before for worker in record.per_worker]
    return Usage(record.channel, record.counters, seconds, memory_bytes, vcpus)
