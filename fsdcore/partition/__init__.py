"""Dividing the neurons of each layer among workers."""

from __future__ import annotations

from collections.abc import Callable

from fsdcore.errors import ConfigError
from fsdcore.events import SILENT, Observer
from fsdcore.network import Network
from fsdcore.partition.base import Owners, Partition
from fsdcore.partition.files import load_partition, save_partition
from fsdcore.partition.hypergraph import hypergraph
from fsdcore.partition.quality import QualityReport, quality
from fsdcore.partition.simple import block, random
from fsdcore.registry import suggestion

__all__ = ["METHODS", "Partition", "QualityReport", "load_partition", "make_partition", "quality", "save_partition"]

Method = Callable[[Network, int, int, Observer], list[Owners]]

METHODS: dict[str, Method] = {"hypergraph": hypergraph, "block": block, "random": random}


def make_partition(
    network: Network, workers: int, method: str = "hypergraph", seed: int = 0, observer: Observer = SILENT
) -> Partition:
    """Divide `network` among `workers`.

    `method` is ``hypergraph`` (fewest rows sent), ``block`` (consecutive ranges) or ``random``; the same `seed`
    gives the same partition. `ConfigError` for another method; `MissingExtraError` if the hypergraph partitioner is not
    installed.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no partition method {method!r}{suggestion(method, list(METHODS))}")
    make = METHODS[method] if workers > 1 else block
    owners = make(network, workers, seed, observer)
    return Partition(workers, tuple(owners), method, seed, network.fingerprint)
