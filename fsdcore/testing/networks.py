"""Small random networks and inputs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from fsdcore.network.activations import RELU, Activation
from fsdcore.network.network import Layer, Network


def random_network(
    widths: Sequence[int],
    activations: Sequence[Activation] = (RELU,),
    density: float = 0.3,
    bias: float = -0.05,
    seed: int = 0,
) -> Network:
    """A network with `widths` neurons at its boundaries; `activations` are used in turn.

    Biases are around `bias`, of either sign.
    """
    rng = np.random.default_rng(seed)
    layers = []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        weights = _random(outputs, inputs, density, rng)
        weights.data -= np.float32(0.4)
        biases = (bias + rng.normal(0, abs(bias) / 4, outputs)).astype(np.float32)
        layers.append(Layer(weights, biases, activations[number % len(activations)]))
    return Network(layers)


def random_inputs(samples: int, neurons: int, density: float = 0.3, seed: int = 0) -> sp.csr_array:
    """Inputs, CSR float32 `(samples, neurons)`, some samples empty."""
    rng = np.random.default_rng(seed)
    inputs = _random(samples, neurons, density, rng)
    kept = np.repeat(rng.random(samples) < 0.8, np.diff(inputs.indptr))
    inputs.data *= kept
    inputs.eliminate_zeros()
    return inputs


def _random(rows: int, columns: int, density: float, rng: np.random.Generator) -> sp.csr_array:
    dense = rng.random((rows, columns), dtype=np.float32) + np.float32(0.01)
    return sp.csr_array(np.where(rng.random((rows, columns)) < density, dense, np.float32(0)))
