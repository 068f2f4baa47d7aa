"""``fsd demo``: the whole system on a generated network, with no cloud, no network and no data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsdcore.cli.output import say
from fsdcore.cli.progress import watching
from fsdcore.cli.report import check_outputs, show_variants
from fsdcore.cli.signals import running_workers
from fsdcore.client.config import Config, load_config

if TYPE_CHECKING:
    from fsdcore.client.session import Result
    from fsdcore.network.network import Network
    from fsdcore.partition import Partition
    from fsdcore.record.observer import Observer

__all__ = ["demo"]

_NEURONS, _LAYERS, _SAMPLES = 1024, 120, 1000
_CHANNELS = ("queue", "object")


def demo(
    workers: Annotated[int, typer.Option(help="How many workers share the network.", min=2)] = 8,
    channel: Annotated[str | None, typer.Option(help="Only this channel; queue and object if left out.")] = None,
) -> None:
    """Run a generated network on this machine, alone and split over workers, and check the outputs."""
    variants = dict(_variants(workers, channel))
    with watching() as observer:
        network, x = _work(observer)
        results = _results(variants, network, x, observer)
    say(f"{_LAYERS} layers of {_NEURONS:,} neurons, {network.nonzeros:,} weights, {_SAMPLES:,} samples")
    show_variants([(name, result.record) for name, result in results.items()])
    with watching() as observer:
        for name, result in results.items():
            check_outputs(network, x, result.outputs, observer, f"{name}: ")
    say(f"{', '.join(results)}: all outputs are right, compared with the network in float64")


def _variants(workers: int, channel: str | None) -> Iterator[tuple[str, Config]]:
    """The runs to compare, each with its name."""
    yield "serial", load_config(backend="local", workers=1, channel="queue")
    for kind in (channel,) if channel else _CHANNELS:
        yield kind, load_config(backend="local", workers=workers, channel=kind)


def _work(observer: Observer) -> tuple[Network, Any]:
    from fsdcore.network.digits import digits
    from fsdcore.network.generate import radixnet

    return radixnet(_NEURONS, _LAYERS, observer=observer), digits(_SAMPLES, _NEURONS)


def _results(variants: dict[str, Config], network: Network, x: Any, observer: Observer) -> dict[str, Result]:
    from fsdcore.api import connect_config

    results: dict[str, Result] = {}
    splits: dict[int, Partition] = {}
    for name, settings in variants.items():
        split = _split(splits, network, settings, observer)
        with connect_config(settings, observer) as session:
            model = session.load(network, split)
            with running_workers():
                results[name] = model.run(x)
    return results


def _split(splits: dict[int, Partition], network: Network, settings: Config, observer: Observer) -> Partition:
    """The partition for that many workers; made once, the variants share it."""
    from fsdcore.partition import make_partition

    run = settings.run
    if run.workers not in splits:
        splits[run.workers] = make_partition(network, run.workers, run.method, run.seed, observer)
    return splits[run.workers]
