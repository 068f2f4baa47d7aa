"""What a partition is: for each boundary between layers, the rank that owns each neuron."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fsdcore.errors import PlanError
from fsdcore.network.matrices import as_whole, frozen
from fsdcore.network.network import Network
from fsdcore.record.observer import Observer

Owners: TypeAlias = npt.NDArray[np.int32]

# What a partition may name; a run has fewer.
_MOST_RANKS = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Partition:
    """Who owns what.

    `owners` has one int32 array per boundary k = 0..L, of shape `(neurons of x^k,)`, with values in
    ``[0, workers)``; boundary 0 is the input. `method` and `seed` say how it was made.
    """

    workers: int
    owners: tuple[Owners, ...]
    method: str
    seed: int = 0
    fingerprint: str = field(default="")

    def __post_init__(self) -> None:
        workers = as_whole(self.workers, "the workers of a partition", 1, _MOST_RANKS, PlanError)
        object.__setattr__(self, "workers", workers)
        if not isinstance(self.owners, list | tuple):
            raise PlanError(
                f"owners must be a list of arrays, one for each boundary, not a {type(self.owners).__name__}"
            )
        found = tuple(self._ranks(boundary, owners) for boundary, owners in enumerate(self.owners))
        object.__setattr__(self, "owners", found)

    def _ranks(self, boundary: int, given: Any) -> Owners:
        """The owners of a boundary as int32, on memory of their own; `PlanError` if they are no ranks."""
        try:
            owners = np.asarray(given)
        except ValueError as error:
            raise PlanError(f"boundary {boundary} of the partition is no array: {error}") from error
        masked = isinstance(given, np.ma.MaskedArray)
        if owners.ndim != 1 or (owners.size and owners.dtype.kind not in "iu") or masked:
            raise PlanError(f"boundary {boundary} of the partition must be a row of whole numbers, the owners' ranks")
        if owners.size and not 0 <= owners.min() <= owners.max() < self.workers:
            raise PlanError(f"boundary {boundary} of the partition names ranks outside 0..{self.workers - 1}")
        return frozen(owners.astype(np.int32, copy=False), given)

    @cached_property
    def digest(self) -> str:
        """What tells it from every other partition of its network: 16 hex digits of a hash of the owners."""
        made = hashlib.sha256()
        for owners in self.owners:
            made.update(owners.astype("<i4").tobytes())
        return made.hexdigest()[:16]

    def check(self, network: Network) -> None:
        """`PlanError` if this is not a partition of `network`."""
        if self.fingerprint and self.fingerprint != network.fingerprint:
            raise PlanError("the partition was made for another network (the fingerprints differ)")
        if tuple(owners.size for owners in self.owners) != network.widths:
            raise PlanError("the partition does not fit the network: the sizes of the layers differ")


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
