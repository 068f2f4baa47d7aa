"""Partitions that need no partitioner: consecutive ranges, and a random one to compare with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fsdcore.network.network import Network
from fsdcore.partition.base import Owners
from fsdcore.record.observer import Observer

__all__ = ["balanced_ranges", "block", "random"]


def balanced_ranges(loads: npt.NDArray[np.integer], workers: int) -> Owners:
    """Consecutive ranges of as nearly equal load as they can be, for `loads` of shape `(neurons,)`."""
    # A little for the neuron itself, so that rows without nonzeros are shared out as well.
    weights = loads.astype(np.float64) * loads.size + 1.0
    middle = np.cumsum(weights) - weights / 2
    ranks: Owners = np.minimum(middle * workers / max(weights.sum(), 1.0), workers - 1).astype(np.int32)
    return ranks


def _loads(network: Network) -> list[npt.NDArray[np.integer]]:
    """The load of each neuron at boundaries 0..L: the nonzeros of its row; 1 for an input."""
    return [np.ones(network.inputs, np.int64), *(np.diff(layer.weights.indptr) for layer in network.layers)]


def block(network: Network, workers: int, seed: int, observer: Observer) -> list[Owners]:
    """Consecutive ranges of neurons, of equal nonzeros: a rank is over the mean by a row at most, or a little more."""
    del seed
    owners = [balanced_ranges(loads, workers) for loads in _loads(network)]
    observer.progress("partition", len(network), len(network))
    return owners


def random(network: Network, workers: int, seed: int, observer: Observer) -> list[Owners]:
    """Neurons dealt out in random order, the same number to each rank, or one more."""
    rng = np.random.default_rng(seed)
    owners = [rng.permutation(np.arange(width) % workers).astype(np.int32) for width in network.widths]
    observer.progress("partition", len(network), len(network))
    return owners
