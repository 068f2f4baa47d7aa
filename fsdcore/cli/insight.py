"""``fsd report``, ``fsd trace``; options and tables of all commands that forecast, advise and bill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
import typer

from fsdcore.cli.commands import check_apart
from fsdcore.cli.output import check_output, say, size, table
from fsdcore.errors import FormatError, FsdError, InputError
from fsdcore.files import read_document, write_text
from fsdcore.text import dollars

if TYPE_CHECKING:
    from fsdcore.client.config import Config
    from fsdcore.contracts.store import Store
    from fsdcore.estimate import Forecast, Forecaster, Target
    from fsdcore.estimate.activity import Activity
    from fsdcore.estimate.bill import Bill
    from fsdcore.network.network import Network
    from fsdcore.partition import Partition
    from fsdcore.record.observer import Observer
    from fsdcore.record.record import Record

PricesOption = Annotated[str | None, typer.Option(help="A price list, PROVIDER/REGION, or your own file (.toml).")]
ModelOption = Annotated[str | None, typer.Option(help="How fast it is: a model's name, or a file (.toml).")]
Options = Annotated[list[str] | None, typer.Option("--option", help="An option of the prices: architecture=arm64.")]
MemoryOption = Annotated[int, typer.Option(help="Memory of a worker, MiB.", min=1)]
MemoryOfBackendOption = Annotated[
    int | None,
    typer.Option("--memory", help="Memory of a worker, MiB; left out, what the backend gives it, or 2048.", min=1),
]
MemoryHadOption = Annotated[
    int | None,
    typer.Option("--memory", help="MiB a worker had; left out, what the record says, or 2048.", min=1),
]
Densities = Annotated[str | None, typer.Option("--density", help="In place of INPUTS: one share of nonzeros, or L+1.")]
SamplesOption = Annotated[
    int | None, typer.Option(help="How many samples: with --density, or where a TSV has no line for the last.", min=1)
]


def memory_had(record: Record, given: int | None) -> int:
    """MiB that a worker had: what is `given`, or the record's own setting, or the default of forecasts."""
    known = record.settings.get("memory_mb")
    return given or (known if isinstance(known, int) and known > 0 else 2048)


def options(given: list[str] | None) -> dict[str, str]:
    """``name=value`` pairs."""
    pairs = [each.partition("=") for each in given or []]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise InputError(f"--option must be NAME=VALUE, not {name + equals + value!r}")
    return {name: value for name, _, value in pairs}


def activity(network: Network, inputs: Path | None, density: str | None, samples: int | None) -> Activity:
    """From a file of inputs, or from densities."""
    from fsdcore.estimate.activity import activity_of, assumed_activity
    from fsdcore.network.formats import load_inputs

    if (inputs is None) == (density is None):
        raise InputError("give either INPUTS or --density with --samples")
    if inputs is not None:
        return activity_of(network, load_inputs(inputs, network.inputs, samples))
    if samples is None:
        raise InputError("--density needs --samples, the number of samples")
    return assumed_activity(network, densities(density or ""), samples)


def densities(given: str) -> list[float]:
    """Numbers with commas between."""
    try:
        return [float(part) for part in given.split(",")]
    except ValueError as error:
        raise InputError(f"--density must be numbers with commas between, not {given!r}") from error


class Planned(NamedTuple):
    """What is forecast or simulated: files, or densities and samples in place of inputs."""

    network: Path
    inputs: Path | None
    partition: Path | None
    density: str | None
    samples: int | None
    exact: bool


def forecaster_of(planned: Planned, settings: Config, target: Target, store: Store, observer: Observer) -> Forecaster:
    """Forecasts of the plan; where `exact`, with every message of the inputs computed."""
    from fsdcore.estimate.prepare import forecaster_for, partition_for, rehearsed
    from fsdcore.network.formats import load_inputs, load_network
    from fsdcore.partition import load_partition

    network = load_network(planned.network, observer)
    flows = activity(network, planned.inputs, planned.density, planned.samples)
    if planned.partition is not None:
        split = load_partition(planned.partition)
        split.check(network)
    else:
        split = partition_for(store, network, settings.run, settings.run.workers, observer)
    if not planned.exact:
        return forecaster_for(network, split, flows, target)
    if planned.inputs is None:
        raise InputError("--exact needs INPUTS: it computes what they become")
    x = load_inputs(planned.inputs, network.inputs, planned.samples)
    return rehearsed(store, network, split, flows, x, settings.run, target, observer)


class Billing(NamedTuple):
    """What a bill is made with: names or files of prices and model, and MiB of a worker, None for what it has."""

    prices: str | None
    model: str | None
    memory: int | None


def forecast_for(settings: Config, network: Network, split: Partition | None, x: Any, wanted: Billing) -> Forecast:
    """The forecast of a run that is about to be made."""
    from fsdcore.api import connect_config
    from fsdcore.client.config import AUTO
    from fsdcore.estimate.activity import activity_of
    from fsdcore.estimate.prepare import (
        Sources,
        cheapest_channel,
        forecaster_for,
        memory_of,
        partition_for,
        setting_for,
        target_for,
    )

    run = settings.run
    with connect_config(settings) as session:
        target = target_for(session.backend, run.backend, Sources(wanted.model, wanted.prices))
        made = split or partition_for(session.backend.store, network, run, run.workers)
        if run.channel == AUTO and run.workers > 1:
            run = msgspec.structs.replace(run, channel=cheapest_channel(session.backend, network, made, x, run))
        plan = forecaster_for(network, made, activity_of(network, x), target)
        return plan.forecast(setting_for(plan, run, memory_of(session.backend, wanted.memory)))


def read_forecast(file: Path | None) -> Forecast | None:
    """The forecast in a file; `FormatError` if it holds none."""
    if file is None:
        return None
    from fsdcore.decoding import from_json
    from fsdcore.estimate import Forecast

    return from_json(
        read_document(file), Forecast, lambda reason: FormatError(f"not a forecast: {reason}", file=str(file))
    )


def show_bill_of(record: Record, wanted: Billing, before: Forecast) -> None:
    """The bill of a run, next to its forecast."""
    from fsdcore.estimate.bill import bill, load_prices, usage_of

    prices = load_prices(wanted.prices or before.prices)
    memory_bytes = memory_had(record, wanted.memory) << 20
    vcpus = prices.tariff.compute.vcpus_of(memory_bytes)
    show_bill(bill(usage_of(record, memory_bytes, vcpus), prices), before)


def show_forecast(forecast: Forecast) -> None:
    """One forecast, a line for each number, and its bill."""
    counters = forecast.counters
    how = "every message as it will be" if forecast.exact else "from a sample of the input"
    say(f"forecast: {forecast.channel}, {forecast.workers} workers, model {forecast.model}, {how}")
    needs = max(forecast.memory_bytes)
    verdict = "fits" if needs <= forecast.memory_limit_bytes else "DOES NOT FIT"
    rows = [
        ("batches", f"{forecast.batches:,} of {forecast.batch_size:,} samples"),
        ("messages", f"{counters['messages']:,.0f}"),
        ("publishes", f"{counters['publishes']:,.0f}"),
        ("bytes", size(counters["bytes_sent"])),
        ("store requests", f"{counters['puts']:,.0f} put, {counters['gets']:,.0f} get, {counters['lists']:,.0f} list"),
        ("memory", f"{needs / 2**20:,.0f} MiB at most, {verdict} {forecast.memory_limit_bytes >> 20:,} MiB"),
        ("wall time", f"{forecast.wall_seconds:.2f} s"),
        ("billed time, all workers", f"{forecast.worker_seconds:.2f} s"),
    ]
    rows += [(f"{name}, all workers", f"{seconds:.2f} s") for name, seconds in forecast.phases.items()]
    table(("forecast", "total"), rows)
    show_bill(forecast.bill)


def show_bill(bill: Bill, before: Forecast | None = None) -> None:
    """A bill, next to its forecast if there was one."""
    headings = ("item", "quantity", "dollars") if before is None else ("item", "quantity", "dollars", "forecast")
    table(headings, _lines(bill, before), title=f"at the prices of {bill.prices}, {bill.date}")
    say(f"not counted: {'; '.join(bill.not_counted)}")


def _lines(bill: Bill, before: Forecast | None) -> Iterator[tuple[str, ...]]:
    expected = {line.item: line.dollars for line in before.bill.lines} if before else {}
    for line in bill.lines:
        known = (dollars(expected[line.item]) if line.item in expected else "-",) if before else ()
        yield (line.item, f"{line.quantity:,.6g}", dollars(line.dollars), *known)
    total = (dollars(before.dollars),) if before else ()
    yield ("total", "", dollars(bill.total), *total)


_ENDINGS = (".html", ".htm")


def report(
    record: Annotated[Path, typer.Argument(help="A record that `fsd run --record` wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; beside RECORD, as .html, if left out.")
    ] = None,
    prices: PricesOption = None,
    memory: MemoryHadOption = None,
    option: Options = None,
    before: Annotated[Path | None, typer.Option("--forecast", help="What `fsd forecast -o` wrote.")] = None,
) -> None:
    """Show a run as one page (HTML): where the time went, who sent what to whom, what it cost.

    The page holds all it needs: it opens offline, works from a keyboard, and prints.
    With --prices or --forecast it has the bill.
    """
    file = output or record.with_suffix(".html")
    check_apart({"RECORD": record, **({"--forecast": before} if before else {})}, {"the page": file})
    check_output(file, _ENDINGS, one_format=True)
    if option and not (prices or before):
        raise InputError("--option needs --prices: it chooses lines of a price list")
    from fsdcore.record.file import read_record
    from fsdcore.report import report as page_of

    run, expected = read_record(record), read_forecast(before)
    listed = prices or (expected.prices if expected else None)
    billed = None if listed is None else _bill(run, listed, memory_had(run, memory) << 20, options(option))
    page = page_of(run, billed, expected)
    write_text(file, page)
    say(f"{file}: run {run.run_id}, {size(len(page.encode()))}")


def _bill(run: Record, listed: str, memory_bytes: int, chosen: dict[str, str]) -> Bill:
    from fsdcore.estimate.bill import bill, load_prices, usage_of

    prices = load_prices(listed)
    return bill(usage_of(run, memory_bytes, prices.tariff.compute.vcpus_of(memory_bytes)), prices, chosen)


def trace(
    record: Annotated[Path, typer.Argument(help="A record that `fsd run --trace --record` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the trace (.json).")],
) -> None:
    """Write what each rank of a traced run did when, and who waited for whom.

    The file opens in https://ui.perfetto.dev and in chrome://tracing.
    """
    from fsdcore.files import replacing
    from fsdcore.record.file import read_record
    from fsdcore.report.trace import make_trace

    check_output(output, (".json",), one_format=True)
    read = read_record(record)
    try:
        made = make_trace(read)
    except InputError as error:
        raise _of_file(error, record) from error
    with replacing(output) as temporary:
        temporary.write_bytes(made.data)
    say(
        f"{output}: {read.workers} ranks, {made.slices:,} slices, {made.messages:,} messages that were waited for, "
        f"{size(len(made.data))}"
    )
    for note in made.notes:
        say(f"note: {note}")


def _of_file(error: InputError, file: Path) -> FsdError:
    return type(error)(f"{file}: {error}")
