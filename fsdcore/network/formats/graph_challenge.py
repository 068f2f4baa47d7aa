"""The official networks of the MIT/Amazon/IEEE Graph Challenge, from their TSV files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from fsdcore.arrays import Float32s
from fsdcore.errors import FormatError, InputError
from fsdcore.files import PathLike
from fsdcore.network.activations import clipped_relu
from fsdcore.network.formats.tsv import Axis, read_triples
from fsdcore.network.matrices import MOST_NEURONS, as_floats, as_whole, frozen
from fsdcore.network.network import Layer, Network
from fsdcore.record.observer import SILENT, Observer

ACTIVATION = clipped_relu(32)
_BIAS = {1024: -0.3, 4096: -0.35, 16384: -0.4, 65536: -0.45}


def official_bias(neurons: int) -> float:
    """The bias of every neuron in the official network of that size; `InputError` if there is none."""
    if neurons not in _BIAS:
        sizes = ", ".join(map(str, _BIAS))
        raise InputError(f"there is no official bias for {neurons} neurons, only for {sizes}: give `bias`")
    return _BIAS[neurons]


def load_graph_challenge(
    folder: PathLike,
    neurons: int,
    layers: int,
    bias: float | None = None,
    observer: Observer = SILENT,
) -> Network:
    """The network in ``neuron{N}/n{N}-l{k}.tsv`` below `folder`, or directly in it, for k = 1 to `layers`.

    A line is ``input<TAB>output<TAB>weight``, neurons from 1; the files may be packed (``.tsv.gz``). Every
    neuron has `bias`, the official one of that size unless given; the activation is a ReLU clipped at 32.
    `InputError` for numbers that do not fit, `FormatError` with file and line for files that do not.
    """
    neurons, layers = as_whole(neurons, "neurons", 1, MOST_NEURONS), as_whole(layers, "layers", 1, MOST_NEURONS)
    one = as_floats(official_bias(neurons) if bias is None else bias, "bias")
    if one.ndim:
        raise InputError(f"bias must be one number, not an array of shape {one.shape}")
    _find(Path(folder), neurons, 1)
    biases = np.full(neurons, one, dtype=np.float32)
    constants: dict[tuple[float, int], Float32s] = {}
    made = []
    for number in range(1, layers + 1):
        weights = _weights(_find(Path(folder), neurons, number), neurons, constants)
        made.append(Layer(weights, biases, ACTIVATION))
        observer.progress("load layers", number, layers)
    return Network(made, name=f"graph-challenge-{neurons}x{layers}")


def layer_files(folder: PathLike, neurons: int, layers: int) -> list[Path]:
    """The files that are there for layers 1 to `layers`, those that another would be read before included.

    None after the first layer that has none, which is an error when it is read.
    """
    found: list[Path] = []
    for number in range(1, layers + 1):
        there = [file for file in _candidates(Path(folder), neurons, number) if os.path.isfile(file)]
        if not there:
            return found
        found += there
    return found


def _find(folder: Path, neurons: int, number: int) -> Path:
    candidates = list(_candidates(folder, neurons, number))
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    places = "in the folder itself, and packed as .tsv.gz"
    raise FormatError(f"there is no such file; looked also {places}", file=str(candidates[0]))


def _candidates(folder: Path, neurons: int, number: int) -> Iterator[Path]:
    for parent in (folder / f"neuron{neurons}", folder):
        for ending in ("tsv", "tsv.gz"):
            yield parent / f"n{neurons}-l{number}.{ending}"


def _weights(path: Path, neurons: int, constants: dict[tuple[float, int], Float32s]) -> sp.csr_array:
    """One layer as CSR `(outputs, inputs)`; layers of one equal weight share their values in `constants`."""
    lines = read_triples(path, Axis("input neuron", neurons), Axis("output neuron", neurons))
    inputs, outputs = lines.first.astype(np.int32), lines.second.astype(np.int32)
    weights = sp.csr_array((lines.values, (outputs, inputs)), shape=(neurons, neurons))
    if (weights.data == weights.data[0]).all():
        key = (float(weights.data[0]), weights.nnz)
        # Frozen, or each layer would make a copy of its own.
        weights.data = constants.setdefault(key, frozen(weights.data.copy(), None))
    return weights
