"""Partitions in a store, kept for a plan that may be made later, as making them takes longest.

Keys: ``plans/{name}/partition``, beside the plan of that name, and removed with it; one segment per boundary.
"""

from __future__ import annotations

import numpy as np

from fsdcore.contracts.store import Store
from fsdcore.errors import KeyMissingError, WireError
from fsdcore.messages.segments import SegmentReader, compress_segment, pack_arrays, pack_segments, unpack_arrays
from fsdcore.network.network import Network
from fsdcore.partition.base import Partition

__all__ = ["find_kept", "keep"]


def keep(store: Store, plan: str, partition: Partition) -> None:
    """Keep the partition that the plan of this name is, or would be, made of."""
    segments = [compress_segment(pack_arrays({"owners": owners})) for owners in partition.owners]
    about = {"workers": partition.workers, "method": partition.method, "seed": partition.seed}
    store.put(f"plans/{plan}/partition", pack_segments(segments, about))


def find_kept(store: Store, plan: str, network: Network, workers: int, method: str, seed: int) -> Partition | None:
    """The partition that was kept for the plan, None if none was; `PlanError` or `WireError` if it is damaged."""
    try:
        reader = SegmentReader(store, f"plans/{plan}/partition")
    except KeyMissingError:
        return None
    try:
        owners = tuple(unpack_arrays(part)["owners"].astype(np.int32) for part in reader.read(range(len(reader))))
    except KeyError as error:
        raise WireError(f"the object plans/{plan}/partition is damaged: there is no array {error}") from error
    partition = Partition(workers, owners, method, seed, network.fingerprint)
    partition.check(network)
    return partition
