"""What a run costs: counters and seconds in, line items out (paper, section IV), for any provider and channel.

Prices are data: one dated file per provider and region, and one per provider that says what is counted. A **tariff**
says which items a provider bills, by which meter of `METERS`, under which name their price is found. A **price file**
gives those prices for one region. A user's own price file names the tariff it follows, or brings its own lines;
``docs/cost.md`` describes both. The same code bills a run that was counted and prices one that is forecast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import NamedTuple

import msgspec

from fsdcore.errors import InputError
from fsdcore.estimate.shelf import Shelf, file_of
from fsdcore.record.record import BLOCK_BYTES, Record
from fsdcore.text import suggestion

_PRICES = Shelf(resources.files("fsdcore.estimate").joinpath("prices"), "there are no prices for", shared="tariff")


class TariffLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of a bill: how much of `meter` there was, times the price named `price`.

    `channels`: only for runs over these; all if empty. `when`: only with these options (``{"store": "express"}``).
    `unit_bytes`: memory of one unit of a memory-second. `step_bytes`: what one step of a request holds.
    `minimum_bytes`: the least a request is billed for. `round_seconds`: what a worker's seconds are rounded up to.
    """

    item: str
    meter: str
    price: str
    channels: tuple[str, ...] = ()
    when: dict[str, str] = {}
    unit_bytes: int = 1 << 30
    step_bytes: int = 65_536
    minimum_bytes: int = 0
    round_seconds: float = 0.0

    def applies(self, channel: str, options: dict[str, str]) -> bool:
        """Whether a run over `channel` with `options` is billed for it."""
        fits = not self.channels or channel in self.channels
        return fits and all(options.get(name) == value for name, value in self.when.items())


class ComputeShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sizes of a worker: `memory_mib` to choose from, `max_seconds` it may live.

    The vCPUs that come with memory: one for each `bytes_per_vcpu`, or those of the first of `vcpus`
    (pairs of MiB and vCPUs, ascending) that is large enough.
    """

    memory_mib: tuple[int, ...]
    max_seconds: float
    bytes_per_vcpu: int = 0
    vcpus: tuple[tuple[int, float], ...] = ()

    def vcpus_of(self, memory_bytes: int) -> float:
        """The vCPUs of a worker with that much memory."""
        if self.bytes_per_vcpu:
            return memory_bytes / self.bytes_per_vcpu
        fitting = [count for mib, count in self.vcpus if mib << 20 >= memory_bytes]
        return fitting[0] if fitting else max((count for _, count in self.vcpus), default=1.0)


class Tariff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a provider bills. `defaults` are the options (architecture, store) of a run that names none."""

    line: tuple[TariffLine, ...]
    compute: ComputeShape
    defaults: dict[str, str] = {}
    not_counted: tuple[str, ...] = ()


class _PriceFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    currency: str
    date: str
    source: str
    prices: dict[str, float]
    tariff: str | Tariff | None = None


class PriceList(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of one region, and the tariff they are for. `file` is where they came from."""

    name: str
    currency: str
    date: str
    source: str
    prices: dict[str, float]
    tariff: Tariff
    file: str

    def options(self, given: dict[str, str]) -> dict[str, str]:
        """The tariff's default options with `given` on top; `InputError` for an option it does not know."""
        known: dict[str, set[str]] = {}
        for line in self.tariff.line:
            for name, value in line.when.items():
                known.setdefault(name, set()).add(value)
        for name, value in given.items():
            if name not in known:
                raise InputError(f"{self.name} has no option {name!r}{suggestion(name, sorted(known))}")
            if value not in known[name]:
                raise InputError(f"{self.name}: {name} cannot be {value!r}{suggestion(value, sorted(known[name]))}")
        return {**self.tariff.defaults, **given}

    def lines(self, channel: str, options: dict[str, str]) -> tuple[TariffLine, ...]:
        """The items that a run over `channel` is billed for; `InputError` if one of them has no price here."""
        found = tuple(line for line in self.tariff.line if line.applies(channel, options))
        for line in found:
            if line.price not in self.prices:
                raise InputError(f"{self.file}: there is no price {line.price!r}, which is needed for {line.item!r}")
        return found

    def check_channel(self, channel: str) -> None:
        """`InputError` if the tariff says nothing of `channel`."""
        named = {name for line in self.tariff.line for name in line.channels}
        if channel not in named | {"serial", "object"}:
            raise InputError(
                f"{self.name} has no prices for the channel {channel!r}{suggestion(channel, sorted(named))}"
            )


# Prices in files --------------------------------------------------------------------------------------------


def price_names() -> list[str]:
    """The price lists that come with the project, named ``provider/region``."""
    return _PRICES.names()


def load_prices(name: str) -> PriceList:
    """A price list by its name, or from the user's own file (``*.toml``).

    `InputError` for a name that is not known; the file's name is in the text if it is not what it should be.
    """
    read, file = _PRICES.load(name, _PriceFile), file_of(name)
    if read.currency != "USD":
        raise InputError(
            f"{file}: currency must be USD, not {read.currency!r}: forecasts, advice and bills are in dollars"
        )
    for key, price in read.prices.items():
        if not (math.isfinite(price) and price >= 0):
            raise InputError(f"{file}: the price {key!r} must be 0 or more, not {price}")
    tariff = read.tariff if isinstance(read.tariff, Tariff) else _tariff(file, read.tariff or file.rpartition("/")[0])
    _check_meters(file, tariff)
    return PriceList(
        name=read.name,
        currency=read.currency,
        date=read.date,
        source=" ".join(read.source.split()),
        prices=read.prices,
        tariff=tariff,
        file=file,
    )


def _check_meters(file: str, tariff: Tariff) -> None:
    for line in tariff.line:
        if line.meter not in METERS:
            raise InputError(
                f"{file}: {line.item}: there is no meter {line.meter!r}{suggestion(line.meter, list(METERS))}"
            )


def _tariff(file: str, provider: str) -> Tariff:
    providers = sorted({name.partition("/")[0] for name in price_names()})
    if provider not in providers:
        raise InputError(f"{file}: tariff must name one of {', '.join(providers)}, or hold the lines of another")
    return _PRICES.read(f"{provider}/{_PRICES.shared}", Tariff)


# Bills ----------------------------------------------------------------------------------------------------


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
