"""``fsd forecast``: what a run will send, need, take and cost. ``fsd bill``: what one that was made costs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsdcore.cli.commands import NOT_FORECAST, check_apart, run_options
from fsdcore.cli.insight import (
    Densities,
    MemoryHadOption,
    MemoryOfBackendOption,
    ModelOption,
    Options,
    Planned,
    PricesOption,
    SamplesOption,
    activity,
    forecaster_of,
    memory_had,
    options,
    read_forecast,
    show_bill,
    show_forecast,
)
from fsdcore.cli.output import check_output, say, say_all, table, watching
from fsdcore.cli.signals import running_workers
from fsdcore.client.config import FILE_VARIABLE, load_config
from fsdcore.errors import InputError, RunError
from fsdcore.files import write_text
from fsdcore.text import dollars

if TYPE_CHECKING:
    from fsdcore.client.config import Config
    from fsdcore.estimate import Forecast, Forecaster
    from fsdcore.estimate.activity import Activity
    from fsdcore.estimate.advice import Advice, Choices, Goal
    from fsdcore.estimate.prepare import Sources


@run_options(but=NOT_FORECAST)
def forecast(
    network: Annotated[Path, typer.Argument(help="A network file (.safetensors).")],
    inputs: Annotated[Path | None, typer.Argument(help="The samples (.npz, .npy, .mtx, .tsv, .tsv.gz).")] = None,
    density: Densities = None,
    samples: SamplesOption = None,
    partition: Annotated[Path | None, typer.Option(help="A split that `fsd partition` wrote.")] = None,
    memory: MemoryOfBackendOption = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compute every message of the whole input here.")] = False,
    model: ModelOption = None,
    prices: PricesOption = None,
    option: Options = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it (JSON).")] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (TOML).")] = None,
    **run: Any,
) -> None:
    """Say before a run what it will send, whether it fits, how long it takes and what it costs.

    Nothing is started. Messages come from the plan and a sample of the input; with --exact from all of it.
    """
    check_output(output)
    from fsdcore.estimate.prepare import Sources

    settings = load_config(config, **run)
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


_Wide = tuple[list[int], list[int], list[int]]


@run_options("backend", "method", "seed")
def advise(
    network: Annotated[Path, typer.Argument(help="A network file (.safetensors).")],
    inputs: Annotated[Path | None, typer.Argument(help="The samples (.npz, .npy, .mtx, .tsv, .tsv.gz).")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds: the cheapest way that is done by then.")] = None,
    budget: Annotated[float | None, typer.Option(help="Dollars: the fastest way for them.")] = None,
    density: Densities = None,
    samples: SamplesOption = None,
    workers: Annotated[str, typer.Option(help="Numbers of workers to consider.")] = "1,2,4,8",
    branching: Annotated[str, typer.Option(help="Numbers of children to consider.")] = "2,4,8",
    replicas: Annotated[str, typer.Option(help="Numbers of groups that share the samples.")] = "1,2,4,8",
    model: ModelOption = None,
    prices: PricesOption = None,
    option: Options = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (TOML).")] = None,
    **run: Any,
) -> None:
    """Say which variant, channel, workers, memory and batches to use, and what else is worth a thought.

    Plans that the backend's store holds are used; others are made. Exit code 1 if nothing meets the goal.
    """
    from fsdcore.estimate.advice import Goal
    from fsdcore.estimate.advice import advise as advised
    from fsdcore.estimate.prepare import Sources

    goal = Goal(deadline, budget)
    lists = _numbers("--workers", workers), _numbers("--branching", branching), _numbers("--replicas", replicas)
    settings = load_config(config, **run)
    choices = _choices(settings, Sources(model, prices, options(option)), network, (inputs, density, samples), lists)
    _show(advised(choices, goal), goal)


def _numbers(name: str, given: str) -> list[int]:
    try:
        found = [int(part) for part in given.split(",")]
    except ValueError as error:
        raise InputError(f"{name} must be whole numbers with commas between, not {given!r}") from error
    if min(found) < 1:
        raise InputError(f"{name} must be 1 or more, not {min(found)}")
    return sorted(set(found))


def _choices(
    settings: Config,
    sources: Sources,
    file: Path,
    flow: tuple[Path | None, str | None, int | None],
    lists: _Wide,
) -> Choices:
    from fsdcore.api import connect_config
    from fsdcore.estimate.advice import Choices
    from fsdcore.estimate.prepare import forecaster_for, partition_for, target_for
    from fsdcore.network.formats import load_network

    workers, branching, replicas = lists
    with watching() as observer, connect_config(settings, observer) as session:
        target = target_for(session.backend, settings.run.backend, sources)
        network = load_network(file, observer)
        flows: Activity = activity(network, *flow)
        plans: dict[int, Forecaster] = {}
        for number, count in enumerate(workers, start=1):
            split = partition_for(session.backend.store, network, settings.run, count, observer)
            plans[count] = forecaster_for(network, split, flows, target)
            observer.progress("plans", number, len(workers))
        channels = [kind for kind in session.backend.channels if kind in target.model.channels]
    return Choices(
        plans=plans,
        channels=channels,
        memory_bytes=[size << 20 for size in sorted(target.prices.tariff.compute.memory_mib)],
        batch_sizes=_batch_sizes(plans),
        branching=branching,
        replicas=replicas,
    )


def _batch_sizes(plans: dict[int, Forecaster]) -> list[int]:
    """What runs would choose by themselves, and a quarter of the least of it."""
    usual = {plan.default_batch_size for plan in plans.values()}
    return sorted(usual | {max(1, min(usual) // 4)})


def _show(advice: Advice, goal: Goal) -> None:
    headings = ("", "variant", "workers", "groups", "memory", "branching", "batch", "seconds", "dollars", "waiting")
    rows = [_row(each, "=>" if each is advice.best else "") for each in advice.front]
    table(headings, rows, title=f"{advice.front[0].prices}, model {advice.front[0].model}; nothing beats these in both")
    if advice.best is None:
        raise RunError(str(advice))
    say_all(str(advice))


def _row(each: Forecast, mark: str) -> tuple[str, ...]:
    waiting = each.phases["wait"] / max(sum(each.phases.values()), 1e-9)
    return (
        mark,
        each.channel,
        str(each.workers),
        str(each.replicas),
        f"{each.memory_limit_bytes >> 20} MiB",
        str(each.branching) if each.workers > 1 else "-",
        f"{each.batch_size:,}",
        f"{each.wall_seconds:.2f}",
        dollars(each.dollars),
        f"{waiting:.0%}",
    )


def calibrate(
    named: Annotated[
        str | None, typer.Argument(metavar="[BACKEND]", help="What to measure, as --backend; see `fsd backends`.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write the model (.toml); left out, BACKEND-model.toml."),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="What to measure; see `fsd backends`.")] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (TOML).")] = None,
) -> None:
    """Measure how fast workers compute and services answer, for `fsd forecast --model`.

    Makes short runs and a few requests, which a cloud bills.
    """
    if named and backend and named != backend:
        raise InputError(f"BACKEND is {named}, and --backend {backend}: give one")
    settings = load_config(config, backend=named or backend)
    output = output or _usual(settings.run.backend, config)
    check_output(output, (".toml",), one_format=True)
    from fsdcore.api import connect_config
    from fsdcore.estimate.calibrate import calibrate as measured
    from fsdcore.estimate.speeds import model_text

    with watching() as observer, connect_config(settings, observer) as session, running_workers():
        model = measured(session.backend, settings.run, observer)
    write_text(output, model_text(model))
    compute = model.compute
    say(f"{output}: {compute.multiply_rate:.3g} multiply-adds/s, {compute.codec_rate:.3g} values/s encoded")
    delays = {
        kind: one.send_seconds + one.delivery_seconds + one.receive_seconds for kind, one in model.channels.items()
    }
    for kind, channel in model.channels.items():
        quickest = " (the quickest for small messages)" if delays[kind] == min(delays.values()) else ""
        say(f"{kind}: {1000 * delays[kind]:.3g} ms from end to end, {channel.bytes_per_second:.3g} bytes/s{quickest}")


def _usual(backend: str, config: Path | None) -> Path:
    """The file for a model that none is named for."""
    output = Path(f"{backend}-model.toml")
    read = {"--config": config} if config else {FILE_VARIABLE: Path(os.environ.get(FILE_VARIABLE) or os.devnull)}
    check_apart(read, {"--output": output})
    return output
