"""What flows through a network: the activations of a sample of the input, or densities in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.errors import InputError
from fsdcore.network.network import Network, as_inputs

__all__ = ["Activity", "activity_of", "assumed_activity"]

# Samples that are looked at, unless that would be too many values.
_SAMPLES, _VALUES = 512, 1 << 27


@dataclass(frozen=True, eq=False)
class Activity:
    """Activations of `samples` samples that stand for `population`: ``values[k]`` is x^k, CSR `(neurons, samples)`.

    `compressible` is False where values are made up, and cannot tell how well they compress.
    """

    samples: int
    population: int
    values: tuple[sp.csr_array, ...]
    compressible: bool = True

    @property
    def densities(self) -> list[float]:
        """The share of x^k that is not zero, for each k from 0."""
        return [x.nnz / max(1, x.shape[0] * x.shape[1]) for x in self.values]


def activity_of(network: Network, inputs: object, samples: int = 0) -> Activity:
    """What `network` makes of `inputs`, `(samples, neurons)`, or of a sample of `samples` (0: a few hundred).

    Fuller samples live longer, so the sample has its share of each kind: every n-th by their number of nonzeros.
    """
    rows = as_inputs(inputs, network.inputs)
    count = min(rows.shape[0], samples or _affordable(network))
    x = sp.csr_array(rows[_every_kind(rows, count)]) if count < rows.shape[0] else rows
    values = [_by_neuron(x)]
    for layer in network.layers:
        x = layer.step(x)
        values.append(_by_neuron(x))
    return Activity(count, int(rows.shape[0]), tuple(values))


def _every_kind(rows: sp.csr_array, count: int) -> npt.NDArray[np.int64]:
    by_fullness = np.argsort(np.diff(rows.indptr), kind="stable")
    middles = (np.arange(count) + 0.5) * rows.shape[0] / count
    return np.sort(by_fullness[middles.astype(np.int64)])


def _affordable(network: Network) -> int:
    return max(8, min(_SAMPLES, _VALUES // sum(network.widths)))


def _by_neuron(x: sp.csr_array) -> sp.csr_array:
    turned = sp.csr_array(x.T.tocsr())
    turned.eliminate_zeros()
    turned.sort_indices()
    return turned


def assumed_activity(network: Network, densities: Sequence[float], population: int, seed: int = 0) -> Activity:
    """Activations of the given densities: one for all boundaries, or one for each of x^0 to x^L.

    Which values are nonzero is drawn at random: what is forecast from it is as good as the densities are.
    """
    given = list(densities) * (len(network) + 1) if len(densities) == 1 else list(densities)
    if len(given) != len(network) + 1:
        raise InputError(f"{len(given)} densities; one is needed, or {len(network) + 1}, for the input and each layer")
    if not all(0 <= density <= 1 for density in given):
        raise InputError("a density must be between 0 and 1")
    if population < 1:
        raise InputError(f"samples must be at least 1, not {population}")
    rng = np.random.default_rng(seed)
    count = min(population, _affordable(network))
    made = [_drawn(width, count, density, rng) for width, density in zip(network.widths, given, strict=True)]
    return Activity(count, population, tuple(made), compressible=False)


def _drawn(neurons: int, samples: int, density: float, rng: np.random.Generator) -> sp.csr_array:
    made: Any = sp.random_array((neurons, samples), density=density, format="csr", dtype=np.float32, rng=rng)
    return _by_neuron(sp.csr_array(made.T))
