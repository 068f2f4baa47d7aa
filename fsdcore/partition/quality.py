"""How good a partition is, before anything is run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.network import Layer, Network
from fsdcore.partition.base import Owners, Partition

__all__ = ["QualityReport", "quality"]


@dataclass(frozen=True)
class QualityReport:
    """What a run of the partition would cost.

    - `rows_sent`: activation rows that workers send each other, for each batch; `rows_sent_per_layer` by layer
    - `input_rows_read`: input rows that workers read from the store, summed over ranks
    - `input_rows_moved`: those of them that another rank owns: what the paper would send for layer 1
    - `pairs`: (source, target, layer) that talk: messages of a batch
    - `load_imbalance`: by layer, the largest load (nonzeros of a rank's rows) over the mean
    - `memory_bytes`: by rank, weights with their indices, and biases
    """

    workers: int
    method: str
    rows_sent: int
    rows_sent_per_layer: tuple[int, ...]
    input_rows_read: int
    input_rows_moved: int
    pairs: int
    load_imbalance: tuple[float, ...]
    memory_bytes: tuple[int, ...]

    def lines(self) -> list[str]:
        """The report as text, one fact per line."""
        memory = np.array(self.memory_bytes) / 2**20
        talkers = max(1, self.workers * (self.workers - 1) * (len(self.load_imbalance) - 1))
        return [
            f"workers           {self.workers} ({self.method})",
            f"rows sent         {self.rows_sent:,}",
            f"input rows read   {self.input_rows_read:,} ({self.input_rows_moved:,} owned by another rank)",
            f"pairs that talk   {self.pairs:,} ({self.pairs / talkers:.0%} of all)",
            f"load max/mean     {max(self.load_imbalance):.3f} (worst layer)",
            f"memory per rank   {memory.max():.1f} MiB largest, {memory.mean():.1f} MiB mean",
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def _crossings(layer: Layer, before: Owners, after: Owners, workers: int) -> npt.NDArray[np.int64]:
    """`(workers, workers)`: how many rows of the source (first index) the target reads."""
    readers = np.repeat(after, np.diff(layer.weights.indptr)).astype(np.int64)
    used = np.unique(readers * layer.inputs + layer.weights.indices)
    target, neuron = np.divmod(used, max(layer.inputs, 1))
    cells = before[neuron].astype(np.int64) * workers + target
    return np.bincount(cells, minlength=workers * workers).reshape(workers, workers)


def _loads(layer: Layer, after: Owners, workers: int) -> npt.NDArray[np.float64]:
    weights = np.diff(layer.weights.indptr).astype(np.float64)
    return np.bincount(after, weights=weights, minlength=workers).astype(np.float64)


def _imbalance(loads: npt.NDArray[np.float64]) -> float:
    return float(loads.max() / loads.mean()) if loads.any() else 1.0


def _memory(
    weights: sp.csr_array, rows: npt.NDArray[np.int64], loads: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return loads * (weights.data.itemsize + weights.indices.itemsize) + rows * 8


def quality(network: Network, partition: Partition) -> QualityReport:
    """What `partition` would cost for `network`; `PlanError` if they do not fit."""
    partition.check(network)
    workers, owners = partition.workers, partition.owners
    crossings = [
        _crossings(layer, before, after, workers)
        for layer, before, after in zip(network.layers, owners, owners[1:], strict=False)
    ]
    loads = [_loads(layer, after, workers) for layer, after in zip(network.layers, owners[1:], strict=True)]
    rows = [np.bincount(after, minlength=workers) for after in owners[1:]]
    memory = sum(_memory(layer.weights, r, load) for layer, r, load in zip(network.layers, rows, loads, strict=True))
    moved = [int(crossing.sum() - np.trace(crossing)) for crossing in crossings]
    talk = [int(np.count_nonzero(c) - np.count_nonzero(np.diag(c))) for c in crossings[1:]]
    return QualityReport(
        workers=workers,
        method=partition.method,
        rows_sent=sum(moved[1:]),
        rows_sent_per_layer=(0, *moved[1:]),
        input_rows_read=int(crossings[0].sum()),
        input_rows_moved=moved[0],
        pairs=sum(talk),
        load_imbalance=tuple(_imbalance(load) for load in loads),
        memory_bytes=tuple(np.asarray(memory).astype(int).tolist()),
    )
