"""``fsd generate``: networks and inputs from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fsdcore.cli.commands import group, register
from fsdcore.cli.output import check_output, say
from fsdcore.cli.progress import watching

__all__ = ["app"]

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
    from fsdcore.network.digits import digits as generated
    from fsdcore.network.formats import save_outputs

    inputs = generated(samples, neurons, seed=seed)
    save_outputs(output, inputs)
    say(f"{output}: {inputs.shape[0]:,} samples of {inputs.shape[1]:,} neurons, {inputs.nnz:,} nonzeros")
