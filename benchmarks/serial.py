"""``python -m benchmarks.serial``: one worker against the ways to do the same in one process.

The path is a serial worker's own (`BatchLoop`, no messenger), from a CSR input to the categories. Making the plan is
not part of it, as transposing the weights is not part of plain scipy's. Ratios are of processor seconds, taken in turn
in one process; the two-thread figure is of wall time, and says nothing unless two cores are free.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from benchmarks.tables import Table, interleaved, median, save, show
from benchmarks.workload import workload
from fsdcore.codec import Rows
from fsdcore.kernels import PreparedLayer, SparseSamples, make_kernel
from fsdcore.loop import BatchLoop, Tools
from fsdcore.network import Network
from fsdcore.partition import make_partition
from fsdcore.plan import from_arrays, layer_arrays
from fsdcore.radixnet import radixnet
from fsdcore.record import Recorder

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
        self._tools = Tools(make_kernel(kernel, threads), Recorder(0, len(network)))
        parts = zip(network.layers, layer_arrays(network, make_partition(network, 1, "block")), strict=True)
        self.layers = [self._prepared(arrays[0], layer.activation) for layer, arrays in parts]

    def _prepared(self, arrays: dict[str, Any], activation: Any) -> PreparedLayer:
        return self._tools.kernel.prepare(from_arrays(arrays, activation))

    def run(self, inputs: sp.csr_array) -> Rows:
        loop = BatchLoop(self._tools, 0, int(inputs.shape[0]))
        loop.first(self.layers[0], SparseSamples(inputs.indptr, inputs.indices, inputs.data))
        for number, layer in enumerate(self.layers[1:], start=2):
            for _ in loop.later(number, layer):
                raise AssertionError("a serial worker waits for nobody")
        return loop.outputs()


def _categories(rows: Rows) -> npt.NDArray[np.int32]:
    live: npt.NDArray[np.bool_] = (rows.values != 0).any(axis=0)
    return rows.columns[live]


def _plain(network: Network, weights: list[sp.csr_array], inputs: sp.csr_array) -> sp.csr_array:
    y = inputs
    for layer, matrix in zip(network.layers, weights, strict=True):
        y = y @ matrix
        y.data += layer.bias[y.indices]
        layer.activation.apply(y.data)
        y.eliminate_zeros()
    return y


def _cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _wall_seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _agrees(found: Rows, expected: sp.csr_array) -> bool:
    """Whether values are close and categories the same."""
    outputs = np.zeros(expected.shape, np.float32)
    outputs[found.columns] = found.values.T
    same = np.array_equal(_categories(found), np.unique(expected.nonzero()[0]))
    return same and np.allclose(outputs, expected.toarray(), rtol=1e-4, atol=1e-4)


def _compare(neurons: int, samples: int, repeats: int) -> tuple[Any, ...]:
    network, inputs = _job(neurons, samples)
    weights = [sp.csr_array(layer.weights.T) for layer in network.layers]
    one, two = _Serial(network, "compiled", 1), _Serial(network, "compiled", 2)
    dropped = _Serial(network, "scipy", 1)
    agrees = _agrees(one.run(inputs), _plain(network, weights, inputs))
    cpu = interleaved(
        {
            "plain": lambda: _cpu_seconds(lambda: _plain(network, weights, inputs)),
            "dropped": lambda: _cpu_seconds(lambda: _categories(dropped.run(inputs))),
            "one": lambda: _cpu_seconds(lambda: _categories(one.run(inputs))),
        },
        repeats,
    )
    wall = interleaved(
        {
            "one": lambda: _wall_seconds(lambda: _categories(one.run(inputs))),
            "two": lambda: _wall_seconds(lambda: _categories(two.run(inputs))),
        },
        2 * repeats + 1,
    )
    plain, mine = median(cpu["plain"]), median(cpu["one"])
    edges = network.nonzeros * samples
    return (
        f"{neurons:,} x {samples:,}",
        plain,
        median(cpu["dropped"]),
        mine,
        plain / mine,
        median(wall["one"]) / median(wall["two"]),
        edges / mine / 1e9,
        "yes" if agrees else "NO",
    )


def _bounds() -> Table:
    """What this processor can do at most, one core, by the instruction set in use."""
    from fsdcore.kernels import _native

    rounds, floats, sweeps = 20_000_000, 64 * 1024, 4_000
    done = _native.burn(1)
    rate = done * rounds / _cpu_seconds(lambda: _native.burn(rounds)) / 1e9
    data = np.zeros(floats, np.float32)
    read = floats * sweeps / _cpu_seconds(lambda: _native.sweep(data, sweeps)) / 1e9
    rows = (("multiply-adds", rate), ("floats read from 256 KiB", read))
    return Table(f"bounds of one core ({_native.instructions()}), billions a second", ("what", "rate"), rows)


def measure(quick: bool = False) -> list[Table]:
    """All sizes; with `quick` small ones."""
    sizes = _QUICK if quick else _SIZES
    rows = tuple(_compare(neurons, samples, 1 if quick or neurons > 16384 else 3) for neurons, samples in sizes.items())
    columns = (
        "neurons x samples",
        "scipy CSR@CSR s",
        "scipy, dead dropped s",
        "compiled s",
        "times CSR@CSR",
        "two threads (wall)",
        "nominal Gedge/s",
        "agrees",
    )
    return [Table("one worker, 120 layers, processor seconds", columns, rows, __doc__ or ""), _bounds()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--json", type=Path, default=Path("bench-results"), help="the folder for serial.json")
    given = parser.parse_args()
    tables = measure(given.quick)
    print(*(show(table) for table in tables), sep="\n")
    save("serial", tables, given.json)


if __name__ == "__main__":
    main()
