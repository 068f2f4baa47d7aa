"""How good a partition is, before anything is run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fsdcore.arrays import Int64s
from fsdcore.errors import PlanError
from fsdcore.network.network import Layer, Network, as_network
from fsdcore.partition.base import Owners, Partition


@dataclass(frozen=True)
class QualityReport:
    """What a run of the partition would cost.

    - `rows_sent`: activation rows that workers send each other, for each batch; `rows_sent_per_layer` by layer, 0 for
      layer 1, whose input comes from the store
    - `input_rows_read`: input rows that workers read from the store, summed over ranks
    - `input_rows_moved`: those of them that another rank owns: what the paper would send for layer 1
    - `pairs`: (source, target, layer) that talk: messages of a batch
    - `load_imbalance`: by layer, the largest load (nonzeros of a rank's rows) over the mean
    - `memory_bytes`: by rank, what its part of the plan takes: weights with their indices, and biases
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


def _crossings(layer: Layer, before: Owners, after: Owners, workers: int) -> Int64s:
    """`(workers, workers)`: how many rows of the source (first index) the target reads."""
    target = np.repeat(after, np.diff(layer.weights.indptr))
    reads = np.zeros((workers, layer.inputs), np.bool_)
    reads[target, layer.weights.indices] = True
    targets, neurons = np.nonzero(reads)
    cells = before[neurons].astype(np.int64) * workers + targets
    return np.bincount(cells, minlength=workers * workers).reshape(workers, workers)


def _loads(layer: Layer, after: Owners, workers: int) -> Int64s:
    """The nonzeros of each rank's rows."""
    sizes = np.diff(layer.weights.indptr).astype(np.float64)
    return np.bincount(after, weights=sizes, minlength=workers).astype(np.int64)


def _imbalance(loads: Int64s) -> float:
    return float(loads.max() / loads.mean()) if loads.any() else 1.0


def layer_memory(weights: Int64s, rows: Int64s, blocks: Int64s, sent: Int64s, widest: int) -> Int64s:
    """Bytes by rank of one layer as the compiled kernel holds it, at most.

    4 for a value, 2 or 4 for an index (`widest`: the most columns of a block), 20 for a row in each block, 4 for a bias
    and for each row that is sent.
    """
    index = 2 if widest <= 1 << 16 else 4
    return np.asarray((4 + index) * weights + 20 * blocks * rows + 4 * (rows + sent), np.int64)


def widest_block(number: int, before: Owners) -> int:
    """The most columns of a block of layer `number`, from 0: layer 0 reads the whole input, others what a rank owns."""
    return int(np.bincount(before).max(initial=0)) if number else before.size


def _all_memory(loads: list[Int64s], partition: Partition, crossings: list[Int64s]) -> Int64s:
    workers, owners = partition.workers, partition.owners
    total = np.zeros(workers, np.int64)
    for number, (load, after, crossing) in enumerate(zip(loads, owners[1:], crossings, strict=True)):
        # The local block, and one for each rank that rows come from; no rank sends the input.
        sent = _sent(crossing) if number else np.zeros_like(crossing)
        blocks, rows = 1 + np.count_nonzero(sent, axis=0), np.bincount(after, minlength=workers)
        total += layer_memory(load, rows, blocks, sent.sum(axis=1), widest_block(number, owners[number]))
    return total


def _sent(crossing: Int64s) -> Int64s:
    """`crossing` without what ranks read of their own."""
    return crossing - np.diag(np.diag(crossing))


def quality(network: Network, partition: Partition) -> QualityReport:
    """What `partition` would cost for `network`; `PlanError` if they do not fit."""
    as_network(network)
    if not isinstance(partition, Partition):
        raise PlanError(f"this takes a Partition, not a {type(partition).__name__}")
    partition.check(network)
    workers, layers, owners = partition.workers, network.layers, partition.owners
    crossings = [
        _crossings(layer, before, after, workers)
        for layer, before, after in zip(layers, owners[:-1], owners[1:], strict=True)
    ]
    loads = [_loads(layer, after, workers) for layer, after in zip(layers, owners[1:], strict=True)]
    sent = [_sent(crossing) for crossing in crossings]
    per_layer = (0, *(int(rows.sum()) for rows in sent[1:]))
    return QualityReport(
        workers=workers,
        method=partition.method,
        rows_sent=sum(per_layer),
        rows_sent_per_layer=per_layer,
        input_rows_read=int(crossings[0].sum()),
        input_rows_moved=int(sent[0].sum()),
        pairs=sum(int(np.count_nonzero(rows)) for rows in sent[1:]),
        load_imbalance=tuple(_imbalance(load) for load in loads),
        memory_bytes=tuple(_all_memory(loads, partition, crossings).tolist()),
    )
