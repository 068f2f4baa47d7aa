"""Dividing the neurons of each layer among workers."""

from __future__ import annotations

from collections.abc import Callable

from fsdcore.errors import ConfigError
from fsdcore.network.matrices import as_whole
from fsdcore.network.network import Network, as_network
from fsdcore.partition.base import Owners, Partition, block, random
from fsdcore.partition.files import load_partition, save_partition
from fsdcore.partition.hypergraph import hypergraph
from fsdcore.partition.quality import QualityReport, quality
from fsdcore.record.observer import SILENT, Observer
from fsdcore.text import suggestion

__all__ = ["METHODS", "Partition", "QualityReport", "load_partition", "make_partition", "quality", "save_partition"]

# More than any run has: what counts by worker must fit memory.
_MOST_WORKERS = 2**20
Method = Callable[[Network, int, int, Observer], list[Owners]]

METHODS: dict[str, Method] = {"hypergraph": hypergraph, "block": block, "random": random}


def make_partition(
    network: Network, workers: int, method: str = "hypergraph", seed: int = 0, observer: Observer = SILENT
) -> Partition:
    """Divide `network` among `workers`.

    `method` is ``hypergraph`` (fewest rows sent), ``block`` (consecutive ranges) or ``random``; the same `seed`, from 0
    to 2^31 - 1, gives the same partition. For 1 worker every method gives the same and none needs the partitioner.
    `observer` hears of ``partition`` after each layer. `ConfigError` for another method, fewer than 1 worker or another
    seed; `MissingExtraError` if the hypergraph partitioner is not installed.
    """
    network = as_network(network)
    workers = as_whole(workers, "workers", 1, _MOST_WORKERS, ConfigError)
    seed = as_whole(seed, "seed", 0, 2**31 - 1, ConfigError)
    if method not in METHODS:
        raise ConfigError(f"there is no partition method {method!r}{suggestion(method, list(METHODS))}")
    make = METHODS[method] if workers > 1 else block
    owners = make(network, workers, seed, observer)
    return Partition(workers, tuple(owners), method, seed, network.fingerprint)
