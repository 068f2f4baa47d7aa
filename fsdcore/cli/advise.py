"""``fsd advise``: which way to run, for a deadline or a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsdcore.cli.insight import (
    Densities,
    ModelOption,
    Options,
    PricesOption,
    SamplesOption,
    activity,
    options,
)
from fsdcore.cli.output import say_all, table
from fsdcore.cli.progress import watching
from fsdcore.client.config import load_config
from fsdcore.errors import InputError, RunError
from fsdcore.text import dollars

if TYPE_CHECKING:
    from fsdcore.client.config import Config
    from fsdcore.estimate import Forecast, Forecaster
    from fsdcore.estimate.activity import Activity
    from fsdcore.estimate.advice import Advice, Choices, Goal
    from fsdcore.estimate.prepare import Sources

__all__ = ["advise"]

_Wide = tuple[list[int], list[int], list[int]]


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
    backend: Annotated[str | None, typer.Option(help="Where workers would run; see `fsd backends`.")] = None,
    method: Annotated[str | None, typer.Option(help="How to split: hypergraph, block or random.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the split.")] = None,
    model: ModelOption = None,
    prices: PricesOption = None,
    option: Options = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (TOML).")] = None,
) -> None:
    """Say which variant, channel, workers, memory and batches to use, and what else is worth a thought.

    Plans that the backend's store holds are used; others are made. Exit code 1 if nothing meets the goal.
    """
    from fsdcore.estimate.advice import Goal
    from fsdcore.estimate.advice import advise as advised
    from fsdcore.estimate.prepare import Sources

    goal = Goal(deadline, budget)
    lists = _numbers("--workers", workers), _numbers("--branching", branching), _numbers("--replicas", replicas)
    arguments: dict[str, Any] = {"backend": backend, "method": method, "seed": seed}
    settings = load_config(config, **arguments)
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
