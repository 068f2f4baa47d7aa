"""``fsd import``, ``fsd info``, ``fsd partition``: networks and how they are split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsdcore.cli.commands import check_apart, group, register, run_options
from fsdcore.cli.deploy import Assignments, BackendName, ConfigFile, Name
from fsdcore.cli.output import check_output, say, say_all, size, table, watching
from fsdcore.client.config import load_config
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import InputError

if TYPE_CHECKING:
    from fsdcore.arrays import Float32s
    from fsdcore.network.network import Network

imports = group("Read networks from other formats.")

NetworkFile = Annotated[Path, typer.Argument(metavar="NETWORK", help="A network file (.safetensors).")]


@imports.callback()
def _imports() -> None:
    """Read networks from other formats."""


@register(imports, "graph-challenge")
def graph_challenge(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the layers are (.tsv or .tsv.gz).")],
    neurons: Annotated[int, typer.Option(help="Neurons per layer.")],
    layers: Annotated[int, typer.Option(help="Number of layers.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it (.safetensors).")],
    bias: Annotated[
        float | None, typer.Option(help="Of every neuron; needed where no official network has that size.")
    ] = None,
) -> None:
    """Read a network of the Sparse DNN Graph Challenge."""
    from fsdcore.network.formats import load_graph_challenge, save_network
    from fsdcore.network.formats.graph_challenge import layer_files

    check_apart({file.name: file for file in layer_files(folder, neurons, layers)}, {"--output": output})
    check_output(output)

    with watching() as observer:
        network = load_graph_challenge(folder, neurons, layers, bias, observer=observer)
        save_network(network, output)
    say(f"{output}: {len(network)} layers of {neurons} neurons, {network.nonzeros:,} weights")


def info(file: NetworkFile) -> None:
    """Show what a network file holds."""
    from fsdcore.network.formats import load_network

    with watching() as observer:
        network = load_network(file, observer)
    table(("network", str(file)), _facts(network))


def _facts(network: Network) -> Iterator[tuple[str, str]]:
    places = sum(layer.inputs * layer.outputs for layer in network.layers)
    weights = [layer.weights for layer in network.layers]
    memory = sum(w.data.nbytes + w.indices.nbytes + w.indptr.nbytes for w in weights)
    yield "name", network.name
    yield "layers", str(len(network))
    yield "neurons", _runs([f"{width:,}" for width in network.widths])
    yield "weights", f"{network.nonzeros:,}"
    yield "density", f"{network.nonzeros / places:.3%}" if places else "-"
    yield "memory", size(memory)
    yield "activations", _runs([str(layer.activation) for layer in network.layers])
    yield "bias", _span([float(end) for layer in network.layers for end in _ends(layer.bias)])
    yield "fingerprint", network.fingerprint


def _ends(bias: Float32s) -> Iterator[float]:
    if bias.size:
        yield from (bias.min(), bias.max())


def _span(values: list[float]) -> str:
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _runs(words: list[str]) -> str:
    """The words with how often each comes, the most frequent first; a handful at most."""
    counted = Counter(words).most_common()
    shown = [word if count == 1 else f"{word} (x{count})" for word, count in counted[:5]]
    return ", ".join(shown) + (f" and {len(counted) - 5} more" if len(counted) > 5 else "")


@run_options("workers", "method", "seed")
def partition(
    file: NetworkFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it (.npz); `fsd run` can use it.")
    ] = None,
    **run: Any,
) -> None:
    """Split a network over workers, and show how good the split is."""
    check_output(output, (".npz",))
    from fsdcore.network.formats import load_network
    from fsdcore.partition import make_partition, quality, save_partition

    settings = RunSettings(**{key: value for key, value in run.items() if value is not None})
    workers, method, seed = settings.workers, settings.method, settings.seed
    with watching() as observer:
        network = load_network(file, observer)
        made = make_partition(network, workers, method, seed, observer)
    say_all(str(quality(network, made)))
    if output is not None:
        save_partition(output, made)
        say(f"{output}: {workers} workers, {method}, seed {seed}")


app = group("Make networks and inputs.")

Seed = Annotated[int, typer.Option(help="The same seed gives the same result.", min=0)]
Bias = Annotated[float | None, typer.Option(help="Of every neuron; needed where no official network has that size.")]
Neurons = Annotated[int, typer.Option(help="Neurons per layer, a power of two from 64 to 65536.")]


@register(app, "radixnet")
def radixnet(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write it (.safetensors).")],
    neurons: Neurons = 1024,
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 120,
    bias: Bias = None,
    seed: Seed = 0,
) -> None:
    """Make a network like those of the Graph Challenge: 32 connections per neuron, clipped ReLU."""
    check_output(output)
    from fsdcore.network.formats import save_network
    from fsdcore.network.generate import radixnet as generated

    with watching() as observer:
        network = generated(neurons, layers, seed=seed, bias=bias, observer=observer)
        save_network(network, output)
    say(f"{output}: {len(network)} layers of {neurons} neurons, {network.nonzeros:,} weights")


@register(app, "digits")
def digits(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write them (.npz or .npy).")],
    samples: Annotated[int, typer.Option(help="Number of samples.")] = 1000,
    neurons: Annotated[int, typer.Option(help="Neurons per sample: the pixels of a square picture.")] = 1024,
    seed: Seed = 0,
) -> None:
    """Make inputs: handwritten digits, scaled to the network's size, each pixel 0 or 1."""
    check_output(output, (".npz", ".npy"))
    from fsdcore.network.formats import save_outputs
    from fsdcore.network.generate import digits as generated

    inputs = generated(samples, neurons, seed=seed)
    save_outputs(output, inputs)
    say(f"{output}: {inputs.shape[0]:,} samples of {inputs.shape[1]:,} neurons, {inputs.nnz:,} nonzeros")


def plans(
    backend: BackendName,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="PLAN", help="Remove this plan, by its name; may be repeated.")
    ] = None,
    remove_all: Annotated[bool, typer.Option("--remove-all", help="Remove all plans.")] = False,
    name: Name = None,
    assignments: Assignments = None,
    config: ConfigFile = None,
) -> None:
    """Show the plans in the store of BACKEND, which stay until they are removed, or remove some.

    A plan is a network over so many workers, as runs read it. The next load makes one that was removed again.
    """
    from fsdcore.client import registry
    from fsdcore.plan.files import remove_plan, stored_plans

    kind = registry.backend_class(backend)
    given = [*(assignments or ()), *([f"name={name}"] if name is not None else ())]
    made = kind(load_config(config, backend=backend, channel=kind.channels[0], assignments=given).backend_settings)
    try:
        found = stored_plans(made.store)
        wanted = list(found) if remove_all else list(dict.fromkeys(remove or ()))
        for plan in wanted:
            if plan not in found:
                raise InputError(f"there is no plan {plan!r}; see: fsd plans {backend}")
        for plan in wanted:
            remove_plan(made.store, plan)
            say(f"removed: {plan}")
        if wanted:
            return
        if not found:
            say("no plans")
            return
        rows = [
            (plan, str(one.workers), one.method, str(len(one.widths) - 1), f"{max(one.widths):,}")
            if one is not None
            else (plan, "", "unfinished, or of another release", "", "")
            for plan, one in found.items()
        ]
        table(("plan", "workers", "method", "layers", "widest"), rows)
    finally:
        made.close()
