"""``python -m benchmarks serial``: one worker against the ways to do the same in one process.

Other libraries have a column if they are installed (``pip install --group bench``). The path is a serial worker's own
(`BatchLoop`, no messenger), from a CSR input to the categories. Making the plan is not part of it, as transposing the
weights is not part of plain scipy's. Ratios are of processor seconds, taken in turn in one process; the two-thread
figure is of wall time, and says nothing unless two cores are free.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from benchmarks.others import installed
from benchmarks.plain import plain_loop
from benchmarks.tables import Table, interleaved, median, wall_seconds
from benchmarks.workload import workload
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.kernels import make_kernel
from fsdcore.kernels.base import PreparedLayer, SparseSamples, Strip
from fsdcore.messages.rows import Rows
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Network
from fsdcore.partition import make_partition
from fsdcore.plan.plan import from_arrays, layer_arrays
from fsdcore.record.recorder import Recorder
from fsdcore.worker.loop import BatchLoop, Tools

_SIZES = {1024: 10_000, 4096: 4_000, 16384: 1_000, 65536: 256}
_QUICK = {1024: 2_000, 4096: 500}
_LAYERS = 120
_SIDE = 32


class _Job(NamedTuple):
    network: Network
    inputs: sp.csr_array


def enlarged(inputs: sp.csr_array, factor: int) -> sp.csr_array:
    """Images of 32 x 32, each point made a square of `factor` x `factor`."""
    points = sp.coo_array(inputs)
    sample, point = points.coords
    steps = np.arange(factor)
    across = (point % _SIDE)[:, None, None] * factor + steps[None, None, :]
    down = (point // _SIDE)[:, None, None] * factor + steps[None, :, None]
    columns = (down * (_SIDE * factor) + across).reshape(-1)
    rows, values = np.repeat(sample, factor**2), np.repeat(points.data, factor**2)
    size = inputs.shape[1] * factor**2
    return sp.csr_array(sp.coo_array((values, (rows, columns)), shape=(inputs.shape[0], size)))


def _job(neurons: int, samples: int) -> _Job:
    if neurons == _SIDE**2:
        given = workload(_LAYERS)
        return _Job(given.network, given.inputs[:samples])
    inputs = enlarged(workload(1).inputs[:samples], round((neurons // _SIDE**2) ** 0.5))
    return _Job(radixnet(neurons, _LAYERS), inputs)


class _Serial:
    """A serial worker with its plan in memory."""

    def __init__(self, network: Network, kernel: str, threads: int) -> None:
        self._tools = Tools(make_kernel(kernel, threads), Recorder(SYSTEM_CLOCK, 0, len(network)))
        parts = zip(network.layers, layer_arrays(network, make_partition(network, 1, "block")), strict=True)
        self.layers = [self._prepared(arrays[0], layer.activation) for layer, arrays in parts]

    def _prepared(self, arrays: dict[str, Any], activation: Any) -> PreparedLayer:
        return self._tools.kernel.prepare(from_arrays(arrays, activation))

    def run(self, inputs: sp.csr_array) -> Rows:
        samples = int(inputs.shape[0])
        loop = BatchLoop(self._tools, 0, samples)
        loop.first(self.layers[0], [Strip(0, samples, SparseSamples(inputs.indptr, inputs.indices, inputs.data))])
        for number, layer in enumerate(self.layers[1:], start=2):
            for _ in loop.later(number, layer):
                raise AssertionError("a serial worker waits for nobody")
        return loop.outputs()


def _categories(rows: Rows) -> npt.NDArray[np.int32]:
    live: npt.NDArray[np.bool_] = (rows.values != 0).any(axis=0)
    return rows.columns[live]


def _live_work(network: Network, inputs: sp.csr_array, prepared: list[PreparedLayer]) -> tuple[int, int]:
    """Edges times samples that are alive when they get there, and activations read for them by groups of rows."""
    y, edges, reads = inputs, 0, 0.0
    for layer, part in zip(network.layers, prepared, strict=True):
        work = layer.weights.nnz * int(np.count_nonzero(np.diff(y.indptr)))
        edges, reads = edges + work, reads + work * part.blocks[0].groups / part.rows
        y = layer.step(y)
    return edges, int(reads)


def _cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _agrees(found: Rows, expected: sp.csr_array) -> bool:
    """Whether values are close and categories the same."""
    outputs = np.zeros(expected.shape, np.float32)
    outputs[found.columns] = found.values.T
    same = np.array_equal(_categories(found), np.unique(expected.nonzero()[0]))
    return same and np.allclose(outputs, expected.toarray(), rtol=1e-4, atol=1e-4)


class _Bounds(NamedTuple):
    """What one core can do at most by the instruction set in use, billions a second: multiply-adds, floats read."""

    instructions: str
    multiply_adds: float
    floats: float

    @classmethod
    def measured(cls) -> _Bounds:
        from fsdcore.kernels import _native

        rounds, floats, sweeps = 20_000_000, 64 * 1024, 4_000
        data = np.zeros(floats, np.float32)
        rate = _native.burn(1) * rounds / _cpu_seconds(lambda: _native.burn(rounds)) / 1e9
        read = floats * sweeps / _cpu_seconds(lambda: _native.sweep(data, sweeps)) / 1e9
        return cls(_native.instructions(), rate, read)

    def table(self) -> Table:
        rows = (("multiply-adds", self.multiply_adds), ("floats read from 256 KiB", self.floats))
        return Table(f"Bounds of one core ({self.instructions}), billions a second", ("what", "rate"), rows)


class _Found(NamedTuple):
    """Medians of one size: processor seconds by way, how much faster two threads are, and how much work it is.

    `live_reads` are the activations that live edges read, where rows that share their list of indices read it once.
    """

    name: str
    cpu: dict[str, float]
    two_threads: float
    edges: int
    live_edges: int
    live_reads: int
    agrees: bool


def _compare(neurons: int, samples: int, repeats: int) -> _Found:
    network, inputs = _job(neurons, samples)
    one, two, dropped = (_Serial(network, *how) for how in (("compiled", 1), ("compiled", 2), ("scipy", 1)))
    found, expected = one.run(inputs), plain_loop(network, inputs)
    others = installed(network)
    # Each runs once before it is timed, as one compiles when first called.
    agrees = _agrees(found, expected) and all(
        np.array_equal(run(inputs), _categories(found)) for run in others.values()
    )
    works: dict[str, Callable[[], Any]] = {
        "scipy CSR@CSR": lambda: plain_loop(network, inputs),
        "scipy, dead dropped": lambda: _categories(dropped.run(inputs)),
        **{name: partial(run, inputs) for name, run in others.items()},
        "compiled": lambda: _categories(one.run(inputs)),
    }
    cpu = interleaved({name: partial(_cpu_seconds, work) for name, work in works.items()}, repeats)
    threads = {"one": one, "two": two}
    wall = interleaved(
        {name: partial(wall_seconds, partial(_outputs, serial, inputs)) for name, serial in threads.items()},
        4 * repeats + 1,
    )
    return _Found(
        f"{neurons:,} x {samples:,}",
        {name: median(times) for name, times in cpu.items()},
        median(wall["one"]) / median(wall["two"]),
        network.nonzeros * samples,
        *_live_work(network, inputs, one.layers),
        agrees,
    )


def _outputs(serial: _Serial, inputs: sp.csr_array) -> npt.NDArray[np.int32]:
    return _categories(serial.run(inputs))


def _seconds(found: list[_Found]) -> Table:
    ways = list(found[0].cpu)
    columns = ("neurons x samples", *ways, "times CSR@CSR", "two threads (wall)", "agree")
    rows = [
        (
            each.name,
            *each.cpu.values(),
            each.cpu["scipy CSR@CSR"] / each.cpu["compiled"],
            each.two_threads,
            "yes" if each.agrees else "NO",
        )
        for each in found
    ]
    return Table(f"One worker, {_LAYERS} layers, processor seconds", columns, tuple(rows), __doc__ or "")


def _rates(found: list[_Found], bounds: _Bounds) -> Table:
    """Billions of edges a second, of all there are and of those that live samples meet."""
    rows = []
    for each in found:
        work = (each.edges, each.live_edges, each.live_reads)
        nominal, live, read = (amount / each.cpu["compiled"] / 1e9 for amount in work)
        shares = (live / bounds.multiply_adds, read / bounds.floats)
        rows.append((each.name, nominal, each.live_edges / each.edges, live, *shares))
    rates = ("nominal Gedge/s", "live share", "live Gedge/s", "of the FMA bound", "of the L2 bound")
    note = (
        "An edge is one multiply-add for each sample. Nominal rates count samples that are long dead. What is read is "
        "counted once for rows that are computed together."
    )
    return Table("The compiled kernel, one thread", ("neurons x samples", *rates), tuple(rows), note)


def measure(quick: bool = False) -> list[Table]:
    """All sizes; with `quick` small ones."""
    sizes, bounds = (_QUICK if quick else _SIZES), _Bounds.measured()
    found = [_compare(neurons, samples, 1 if quick else 3) for neurons, samples in sizes.items()]
    return [_seconds(found), _rates(found, bounds), bounds.table()]
