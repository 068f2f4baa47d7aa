"""What a partition is: for each boundary between layers, the rank that owns each neuron."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fsdcore.errors import PlanError
from fsdcore.network import Network

__all__ = ["Owners", "Partition"]

Owners: TypeAlias = npt.NDArray[np.int32]


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
        if self.workers < 1:
            raise PlanError(f"a partition needs at least 1 worker, not {self.workers}")
        for boundary, owners in enumerate(self.owners):
            if owners.ndim != 1 or (owners.size and not 0 <= owners.min() <= owners.max() < self.workers):
                raise PlanError(f"boundary {boundary} of the partition names ranks outside 0..{self.workers - 1}")

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
