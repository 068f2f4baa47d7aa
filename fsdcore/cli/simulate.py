"""``fsd simulate``: a run in virtual time, again and again under changing conditions."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fsdcore.cli.commands import NOT_FORECAST, run_options
from fsdcore.cli.insight import (
    Densities,
    MemoryOption,
    ModelOption,
    Options,
    Planned,
    PricesOption,
    SamplesOption,
    forecaster_of,
    options,
)
from fsdcore.cli.output import check_output, say, table, watching
from fsdcore.client.config import load_config
from fsdcore.errors import InputError
from fsdcore.files import write_text
from fsdcore.text import dollars

if TYPE_CHECKING:
    from fsdcore.client.config import Config
    from fsdcore.estimate import Forecaster, Setting, Target
    from fsdcore.estimate.prepare import Sources
    from fsdcore.estimate.simulate import Summary, Work
    from fsdcore.record.observer import Observer


class _Size(NamedTuple):
    """A network that is not there, by its size."""

    neurons: int | None
    layers: int | None
    connections: int
    exchange: float


class _What(NamedTuple):
    """What is run: files, or a size; densities and samples where there are no inputs."""

    network: Path | None
    inputs: Path | None
    partition: Path | None
    size: _Size
    density: str | None
    samples: int | None
    exact: bool
    memory: int


@run_options(but=NOT_FORECAST)
def simulate(
    network: Annotated[Path | None, typer.Argument(help="A network file (.safetensors); none with --neurons.")] = None,
    inputs: Annotated[Path | None, typer.Argument(help="The samples (.npz, .npy, .mtx, .tsv, .tsv.gz).")] = None,
    neurons: Annotated[int | None, typer.Option(help="In place of NETWORK: neurons of each layer.", min=1)] = None,
    layers: Annotated[int | None, typer.Option(help="With --neurons: how many layers.", min=1)] = None,
    connections: Annotated[int, typer.Option(help="With --neurons: inputs of each neuron.", min=1)] = 32,
    exchange: Annotated[float, typer.Option(help="With --neurons: rows sent, as a share of a random split's.")] = 0.1,
    density: Densities = None,
    samples: SamplesOption = None,
    conditions: Annotated[str, typer.Option(help="steady, usual, rough, or a file (.toml).")] = "usual",
    runs: Annotated[int, typer.Option(help="How many runs, each with the next seed.", min=1)] = 20,
    first_seed: Annotated[int, typer.Option("--first-seed", help="Seed of the first run.", min=0)] = 0,
    explain: Annotated[bool, typer.Option("--explain/--no-explain", help="Say what the time depends on.")] = True,
    partition: Annotated[Path | None, typer.Option(help="A split that `fsd partition` wrote.")] = None,
    memory: MemoryOption = 2048,
    exact: Annotated[bool, typer.Option("--exact", help="Compute every message of the whole input here.")] = False,
    model: ModelOption = None,
    prices: PricesOption = None,
    option: Options = None,
    record: Annotated[Path | None, typer.Option(help="Where to write the record of the first run (JSON).")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="In the record, when each worker did what.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the summary (JSON).")] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (TOML).")] = None,
    **run: Any,
) -> None:
    """Run in virtual time, and say how long runs take, what they cost, and what the time depends on.

    Nothing is started or computed. The network is a file, or only a size (--neurons and --layers) for what cannot be
    made here. The same seed gives the same run; `fsd bill`, `fsd report` and `fsd trace` read its record.
    """
    for file in (record, output):
        check_output(file)
    if trace and record is None:
        raise InputError("--trace needs --record FILE: the trace is a part of the record")
    from fsdcore.estimate.prepare import Sources
    from fsdcore.estimate.simulate import load_conditions

    settings = load_config(config, **run)
    size = _Size(neurons, layers, connections, exchange)
    what = _What(network, inputs, partition, size, density, samples, exact, memory)
    _check(what)
    under = load_conditions(conditions)
    sources = Sources(model, prices, options(option))
    with watching() as observer:
        work, target = _work(what, settings, sources, observer)
        from fsdcore.estimate.simulate import Billing, Simulation

        simulation = Simulation(work, Billing(target.prices, memory << 20, target.options), under)
        seeds = range(first_seed, first_seed + runs)
        found = simulation.summary(seeds, lambda number: observer.progress("runs", number, runs), explain)
    _show(found)
    if output is not None:
        write_text(output, found.to_json() + "\n")
    if record is not None:
        write_text(record, simulation.record(first_seed, trace).to_json() + "\n")


def _check(what: _What) -> None:
    """`InputError` for arguments that do not go together."""
    sized = what.size.neurons is not None
    if sized == (what.network is not None):
        raise InputError("give either a NETWORK file or its size, --neurons and --layers")
    if sized != (what.size.layers is not None):
        raise InputError("--neurons and --layers go together")
    if sized and what.partition is not None:
        raise InputError("--partition is of a NETWORK file, not of a size")
    if sized and (what.density is None or what.samples is None):
        raise InputError("a size needs --density and --samples")
    if what.exact and what.inputs is None:
        raise InputError("--exact needs INPUTS: it computes what they become")


def _work(what: _What, settings: Config, sources: Sources, observer: Observer) -> tuple[Work, Target]:
    from fsdcore.client.config import AUTO
    from fsdcore.client.registry import backend_class
    from fsdcore.estimate.prepare import target_for

    # No session, which would refuse more workers than the backend can start: here none are started.
    with closing(backend_class(settings.run.backend)(settings.backend_settings)) as backend:
        target = target_for(backend, settings.run.backend, sources)
        if settings.run.channel == AUTO and settings.run.workers > 1:
            raise InputError(f"name a channel to simulate: {' or '.join(backend.channels)}")
        if settings.run.channel != AUTO:
            backend.check_channel(settings.run.channel)
        if what.size.neurons is not None:
            return _of_size(what, settings, target), target
        from fsdcore.estimate.simulate import work_of

        assert what.network is not None
        planned = Planned(what.network, what.inputs, what.partition, what.density, what.samples, what.exact)
        plan = forecaster_of(planned, settings, target, backend.store, observer)
        return work_of(plan, _setting(plan, settings, what.memory)), target


def _setting(plan: Forecaster, settings: Config, memory: int) -> Setting:
    from fsdcore.estimate.prepare import setting_for

    return setting_for(plan, settings.run, memory << 20)


def _of_size(what: _What, settings: Config, target: Target) -> Work:
    from fsdcore.cli.insight import densities
    from fsdcore.estimate.simulate import Shape, shape_work
    from fsdcore.estimate.simulate.synthetic import shape_forecaster

    size = what.size
    shape = Shape(
        neurons=size.neurons or 0,
        layers=size.layers or 0,
        workers=settings.run.workers,
        samples=what.samples or 0,
        densities=densities(what.density or ""),
        connections=size.connections,
        exchange=size.exchange,
        seed=settings.run.seed,
    )
    return shape_work(shape, target, _setting(shape_forecaster(shape, target), settings, what.memory))


def _show(found: Summary) -> None:
    say(
        f"simulated: {found.channel}, {found.workers:,} workers, {found.layers} layers, {found.samples:,} samples in "
        f"{found.batches:,} batches, model {found.model}, conditions {found.conditions}, {len(found.runs)} runs"
    )
    refused = sum(run.refused for run in found.runs) / len(found.runs)
    walls, costs = found.wall_seconds, found.dollars
    rows = [
        ("wall time", *(f"{walls[each]:.2f} s" for each in walls)),
        ("dollars", *(dollars(costs[each]) for each in costs)),
    ]
    table(("over all runs", *("half" if each == "p50" else f"{each[1:]} of 100" for each in walls)), rows)
    facts = [
        ("forecast", f"{found.forecast_seconds:.2f} s"),
        ("last worker began after", f"{found.runs[0].launched:.2f} s"),
        ("calls refused and repeated, a run", f"{refused:,.1f}"),
    ]
    facts += [(f"{name}, share of all workers' time", f"{share:.0%}") for name, share in found.shares.items()]
    facts += [(f"shorter without {name}", f"{seconds:.2f} s") for name, seconds in found.gains.items()]
    table(("run", f"seed {found.runs[0].seed}"), facts)
    dearest = max(found.bill.lines, key=lambda line: line.dollars)
    share = dearest.dollars / found.bill.total if found.bill.total else 0.0
    say(f"dearest: {dearest.item}, {dollars(dearest.dollars)} of {dollars(found.bill.total)} ({share:.0%})")
    if found.gains:
        name, seconds = next(iter(found.gains.items()))
        say(f"the time depends most on {name}: without it the run would be {seconds:.2f} s shorter")
