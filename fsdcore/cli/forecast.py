"""``fsd forecast``: what a run will send, need, take and cost. ``fsd bill``: what one that was made costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsdcore.cli.insight import (
    Densities,
    MemoryHadOption,
    MemoryOfBackendOption,
    ModelOption,
    Options,
    Planned,
    PricesOption,
    SamplesOption,
    forecaster_of,
    memory_had,
    options,
    show_bill,
    show_forecast,
)
from fsdcore.cli.output import check_output, say
from fsdcore.cli.progress import watching
from fsdcore.client.config import load_config
from fsdcore.errors import FormatError, InputError
from fsdcore.files import read_document, write_text

if TYPE_CHECKING:
    from fsdcore.client.config import Config
    from fsdcore.estimate import Forecast
    from fsdcore.estimate.prepare import Sources

__all__ = ["bill", "forecast", "read_forecast"]


def forecast(
    network: Annotated[Path, typer.Argument(help="A network file (.safetensors).")],
    inputs: Annotated[Path | None, typer.Argument(help="The samples (.npz, .npy, .mtx, .tsv, .tsv.gz).")] = None,
    density: Densities = None,
    samples: SamplesOption = None,
    backend: Annotated[str | None, typer.Option(help="Where workers would run; see `fsd backends`.")] = None,
    channel: Annotated[str | None, typer.Option(help="How rows would travel: queue or object.")] = None,
    workers: Annotated[int | None, typer.Option(help="How many would take part.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per batch; 0 lets the run choose.")] = None,
    branching: Annotated[int | None, typer.Option(help="How many workers each starts.")] = None,
    method: Annotated[str | None, typer.Option(help="How to split: hypergraph, block or random.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the split.")] = None,
    partition: Annotated[Path | None, typer.Option(help="A split that `fsd partition` wrote.")] = None,
    memory: MemoryOfBackendOption = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compute every message of the whole input here.")] = False,
    model: ModelOption = None,
    prices: PricesOption = None,
    option: Options = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it (JSON).")] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (TOML).")] = None,
) -> None:
    """Say before a run what it will send, whether it fits, how long it takes and what it costs.

    Nothing is started. Messages come from the plan and a sample of the input; with --exact from all of it.
    """
    check_output(output)
    from fsdcore.estimate.prepare import Sources

    arguments: dict[str, Any] = {"backend": backend, "channel": channel, "workers": workers, "seed": seed}
    arguments |= {"batch_size": batch_size, "branching": branching, "method": method}
    settings = load_config(config, **arguments)
    if exact and inputs is None:
        raise InputError("--exact needs INPUTS: it computes what they become")
    planned = Planned(network, inputs, partition, density, samples, exact)
    found = _forecast(planned, settings, Sources(model, prices, options(option)), memory)
    show_forecast(found)
    if output is not None:
        write_text(output, found.to_json() + "\n")
    if not found.fits:
        raise InputError(_too_much(found))


def _forecast(planned: Planned, settings: Config, sources: Sources, memory: int | None) -> Forecast:
    from fsdcore.api import connect_config
    from fsdcore.estimate.prepare import memory_of, setting_for, target_for

    with watching() as observer, connect_config(settings, observer) as session:
        backend = session.backend
        target = target_for(backend, settings.run.backend, sources)
        plan = forecaster_of(planned, settings, target, backend.store, observer)
        return plan.forecast(setting_for(plan, settings.run, memory_of(backend, memory)))


def _too_much(found: Forecast) -> str:
    needs, has = max(found.memory_bytes), found.memory_limit_bytes
    if needs > has:
        return f"a worker would need {needs / 2**20:,.0f} MiB of {has >> 20:,} MiB: use more workers or smaller batches"
    return f"a worker would run {found.wall_seconds:,.0f} s of the {found.seconds_limit:,.0f} s that it may"


def bill(
    record: Annotated[Path, typer.Argument(help="A record that `fsd run --record` wrote.")],
    prices: Annotated[str, typer.Option(help="A price list, PROVIDER/REGION, or your own file (.toml).")],
    memory: MemoryHadOption = None,
    option: Options = None,
    before: Annotated[Path | None, typer.Option("--forecast", help="What `fsd forecast -o` wrote.")] = None,
) -> None:
    """Say what a run cost, item by item, from what it counted; next to its forecast if there is one."""
    from fsdcore.estimate.bill import bill as billed
    from fsdcore.estimate.bill import load_prices, usage_of
    from fsdcore.record.file import read_record

    listed = load_prices(prices)
    run = read_record(record)
    had = memory_had(run, memory)
    usage = usage_of(run, had << 20, listed.tariff.compute.vcpus_of(had << 20))
    made, expected = billed(usage, listed, options(option)), read_forecast(before)
    say(f"run {run.run_id}: backend {run.backend}, {run.channel}, {run.workers:,} workers of {had:,} MiB")
    show_bill(made, expected)
    other = expected.differences(run, made) if expected else []
    if other:
        say(f"note: the forecast is of another run: {'; '.join(other)}")


def read_forecast(file: Path | None) -> Forecast | None:
    """The forecast in a file; `FormatError` if it holds none."""
    if file is None:
        return None
    from fsdcore.decoding import from_json
    from fsdcore.estimate import Forecast

    return from_json(
        read_document(file), Forecast, lambda reason: FormatError(f"not a forecast: {reason}", file=str(file))
    )
