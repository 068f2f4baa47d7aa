"""Networks with the structure of the Graph Challenge (RadiX-Net), of any depth and many sizes.

With N neurons there are B = log2(N / 16) base layers. Base layer j joins input i to the outputs
``(i + {0, -2^j} + (N / 16) m) mod N`` for m = 0..15: 32 a neuron. The first B layers are these; every later
block of B layers is these again, their inputs renumbered by one random permutation per block.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from numbers import Integral

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.errors import InputError
from fsdcore.network.formats.graph_challenge import ACTIVATION, official_bias
from fsdcore.network.matrices import MOST_NEURONS, as_floats, as_whole
from fsdcore.network.network import Layer, Network
from fsdcore.record.observer import SILENT, Observer

__all__ = ["radixnet"]

IndexArray = npt.NDArray[np.int32]

_FEWEST, _MOST = 64, 65536
_CONNECTIONS = 32
_WEIGHT = 1 / 16
_BIAS_OF_SMALL = -0.3


def radixnet(
    neurons: int,
    layers: int,
    seed: int = 0,
    bias: float | None = None,
    observer: Observer = SILENT,
) -> Network:
    """`layers` layers of `neurons` neurons, each with 32 connections of 1/16 and a ReLU clipped at 32.

    `neurons` is a power of two, 64 to 65536. `bias` is the official one of that size (-0.3 below 1,024)
    unless given; sizes between the official ones need it. The same `seed` gives the same network. The first
    log2(neurons / 16) layers do not depend on it; for 1,024 neurons they equal the official ones.
    `InputError` if a number does not fit.
    """
    if not isinstance(neurons, Integral) or neurons not in {2**power for power in range(6, 17)}:
        raise InputError(f"neurons must be a power of two from {_FEWEST} to {_MOST}, not {neurons!r}")
    neurons, layers = int(neurons), as_whole(layers, "layers", 1, MOST_NEURONS)
    # One array for all layers: their values, row ends and biases are the same.
    data = np.full(neurons * _CONNECTIONS, _WEIGHT, dtype=np.float32)
    indptr = np.arange(0, data.size + 1, _CONNECTIONS, dtype=np.int32)
    biases = np.full(neurons, as_floats(_bias(neurons) if bias is None else bias, "bias"), dtype=np.float32)
    for shared in (data, indptr, biases):
        # Or each layer would make a copy of its own.
        shared.setflags(write=False)
    made = []
    for number, inputs in enumerate(islice(_structures(neurons, seed), layers), start=1):
        weights = sp.csr_array((data, inputs.reshape(-1), indptr), shape=(neurons, neurons))
        made.append(Layer(weights, biases, ACTIVATION))
        observer.progress("generate layers", number, layers)
    return Network(made, name=f"radixnet-{neurons}x{layers}")


def _bias(neurons: int) -> float:
    return _BIAS_OF_SMALL if neurons < 1024 else official_bias(neurons)


def _structures(neurons: int, seed: int) -> Iterator[IndexArray]:
    """The inputs of each output, ascending, int32 `(neurons, 32)`, layer after layer without end."""
    base = list(_base(neurons))
    random = np.random.default_rng(seed)
    yield from base
    for _ in count():
        renumbered = random.permutation(neurons).astype(np.int32)
        for structure in base:
            yield np.sort(renumbered[structure], axis=1)


def _base(neurons: int) -> Iterator[IndexArray]:
    sixteenth = neurons // 16
    outputs = np.arange(neurons, dtype=np.int32)[:, None]
    multiples = sixteenth * np.arange(16, dtype=np.int32)
    for j in range(sixteenth.bit_length() - 1):
        steps = np.concatenate([multiples, multiples + 2**j])
        yield np.sort((outputs + steps) % neurons, axis=1).astype(np.int32, copy=False)
