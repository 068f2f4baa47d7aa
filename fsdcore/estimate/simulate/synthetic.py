"""Runs of networks too large to be made here: who sends how much to whom, drawn from a few numbers.

A network of equal layers, every neuron with as many connections, is split evenly. In a random split a rank would need
nearly all that its weights read from others; a good split saves most of that. `Shape.exchange` is the share of
rows that is left, which `fsd partition` measures on networks that can be made: the authors' splits of 16,384 neurons
leave 0.11 of what a random one sends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from fsdcore.arrays import Float64s, Int64s
from fsdcore.errors import InputError
from fsdcore.estimate import Forecaster, Setting, Target
from fsdcore.estimate.activity import LayerStructure, Structure
from fsdcore.estimate.profile import Messages, Profile
from fsdcore.estimate.simulate.work import BatchWork, Work, work_of
from fsdcore.estimate.timing import Loads
from fsdcore.messages.rows import Rows, encode_rows

# Samples that messages are encoded for to learn their sizes, and how many different messages of a layer.
_LOOKED_AT, _SIZES = 128, 6
# Layers that are drawn where all have the same density; the rest repeat them.
_DRAWN = 4
_BYTES_PER_WEIGHT = 8


@dataclass(frozen=True)
class Shape:
    """`densities` of activations: one for all boundaries, or one for each of x^0 to x^L."""

    neurons: int
    layers: int
    workers: int
    samples: int
    densities: Sequence[float]
    connections: int = 32
    exchange: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("neurons", "layers", "workers", "samples", "connections"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.workers > self.neurons:
            raise InputError(f"{self.workers} workers for {self.neurons} neurons: give each at least one")
        if self.connections > self.neurons:
            raise InputError(f"{self.connections} connections of a neuron to {self.neurons} neurons")
        if not 0 < self.exchange <= 1:
            raise InputError(f"exchange must be above 0 and at most 1, not {self.exchange}")
        if len(self.densities) not in (1, self.layers + 1):
            raise InputError(
                f"{len(self.densities)} densities; one is needed, or {self.layers + 1}, for the input and each layer"
            )
        if not all(0 <= density <= 1 for density in self.densities):
            raise InputError("a density must be between 0 and 1")

    @property
    def drawn(self) -> int:
        """How many layers are drawn; from there on they repeat, all but the first in turn."""
        return self.layers if len(self.densities) > 1 else min(self.layers, 1 + _DRAWN)

    def density(self, boundary: int) -> float:
        """The density of x^boundary."""
        return self.densities[boundary] if len(self.densities) > 1 else self.densities[0]


def shape_forecaster(shape: Shape, target: Target) -> Forecaster:
    """Forecasts of the layers that are drawn."""
    return Forecaster(_profile(shape), shape.samples, target)


def shape_work(shape: Shape, target: Target, setting: Setting) -> Work:
    """The work of a run of all layers."""
    plan = shape_forecaster(shape, target)
    work = work_of(plan, setting)
    if shape.drawn == shape.layers:
        return work
    order = [0, *(1 + k % (shape.drawn - 1) for k in range(shape.layers - 1))]
    repeated = {id(batch): _repeated(batch, order) for batch in work.batches}
    longer = shape.layers / shape.drawn
    # What the plan takes grows with its layers; what else a worker needs does not.
    weights = plan.profile(work.batches[0].samples, 0).structure.memory_bytes
    return dataclasses.replace(
        work,
        layers=shape.layers,
        batches=tuple(repeated[id(batch)] for batch in work.batches),
        plan_bytes=work.plan_bytes * longer,
        memory_bytes=work.memory_bytes + weights * (longer - 1),
    )


def _repeated(batch: BatchWork, order: list[int]) -> BatchWork:
    loads = batch.loads
    tables = {
        field.name: getattr(loads, field.name)[order]
        for field in dataclasses.fields(Loads)
        if field.name not in ("edges", "output_bytes")
    }
    edges = None if loads.edges is None else tuple(loads.edges[k] for k in order)
    return dataclasses.replace(
        batch,
        loads=dataclasses.replace(loads, **tables, edges=edges),
        traffic=tuple(batch.traffic[k] for k in order),
        sent={name: counts[order] for name, counts in batch.sent.items()},
    )


def _profile(shape: Shape) -> Profile:
    rng = np.random.default_rng(shape.seed)
    rows = np.full(shape.workers, shape.neurons // shape.workers, np.int64)
    rows[: shape.neurons % shape.workers] += 1
    looked_at = min(shape.samples, _LOOKED_AT)
    parts = [_no_messages(), *(_messages(shape, k, rows, looked_at, rng) for k in range(1, shape.drawn))]
    joined = [np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Messages)]
    held = [(1 - (1 - shape.density(k)) ** rows) * looked_at for k in range(shape.drawn)]
    weights = (rows * shape.connections).astype(np.float64)
    apart = shape.exchange * (1 - 1 / shape.workers)
    live = np.array(held)
    last, first = shape.density(shape.layers), shape.density(0)
    local = live * weights * (1 - apart)
    # The first product needs nothing of others, and is one of sparse with sparse.
    local[0] = live[0] * weights * min(1.0, 4 * first)
    remote = live * weights * apart
    remote[0] = 0.0
    return Profile(
        structure=_structure(shape, rows),
        samples=looked_at,
        messages=Messages(*joined),
        live=live,
        local=local,
        remote=remote,
        outputs=np.asarray(rows * looked_at * (2.0 * last + 1 / 32), np.float64),
        input_bytes=1.3 * first * shape.neurons * looked_at + 2.0 * looked_at,
    )


def _structure(shape: Shape, rows: Int64s) -> Structure:
    none, nothing = np.empty(0, np.int64), sp.csr_array(np.empty((0, 1), np.float32))
    weights = rows * shape.connections
    layer = LayerStructure(none, none, nothing, nothing, weights, np.zeros_like(rows), rows)
    memory = shape.drawn * (_BYTES_PER_WEIGHT * weights + 8 * rows)
    return Structure(shape.workers, (layer,) * shape.drawn, memory, int(rows.max()))


def _no_messages() -> Messages:
    none = np.empty(0, np.int64)
    return Messages(none, none, none, none, *(none.astype(np.float64),) * 3)


def _messages(shape: Shape, before: int, rows: Int64s, looked_at: int, rng: np.random.Generator) -> Messages:
    """The messages of layer ``before + 1``: each rank's rows from others, each of any other rank."""
    workers, neurons = shape.workers, shape.neurons
    density = shape.density(before)
    read = (neurons - rows) * (1 - (1 - 1 / neurons) ** (rows * shape.connections))
    wanted = np.rint(read * shape.exchange).astype(np.int64) * (workers > 1)
    target = np.repeat(np.arange(workers), wanted)
    source = rng.integers(0, max(1, workers - 1), target.size)
    source += source >= target
    pair, count = np.unique(source * workers + target, return_counts=True)
    # No rank sends a row twice.
    count = np.minimum(count, rows[pair // workers])
    return Messages(
        layer=np.full(pair.size, before + 1),
        source=pair // workers,
        target=pair % workers,
        rows=count.astype(np.int64),
        live=(1 - (1 - density) ** count) * looked_at,
        nonzeros=count * density * looked_at,
        body=_bodies(count, density, looked_at, rng),
    )


def _bodies(rows: Int64s, density: float, samples: int, rng: np.random.Generator) -> Float64s:
    """Bytes of messages of so many rows: some are made up and encoded, the rest lie between them."""
    if rows.size == 0:
        return np.empty(0)
    known = np.unique(np.quantile(rows, np.linspace(0, 1, _SIZES)).astype(np.int64))
    columns = np.arange(samples, dtype=np.int32)
    sizes = []
    for count in known.tolist():
        values = rng.random((count, samples), dtype=np.float32) + np.float32(0.01)
        made = np.where(rng.random((count, samples)) < density, values, np.float32(0))
        sizes.append(len(encode_rows(Rows(columns, made), samples).body.data))
    return np.ceil(np.interp(rows, known, sizes))
