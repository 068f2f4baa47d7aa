"""The same inference by other libraries, those of the dependency group ``bench`` that are installed.

All run in one thread, from a CSR input to the categories (the samples that are alive at the end). Numba and torch
multiply dense activations and drop dead samples, which is far better for them than not to; SuiteSparse:GraphBLAS keeps
activations sparse, which is what it is for.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.network.network import Network

Samples = npt.NDArray[np.int32]
Run = Callable[[sp.csr_array], Samples]

# Below this share of live samples, the dead ones are cut out.
_WORTH_CUTTING = 0.9
_TILE = 64


def installed(network: Network) -> dict[str, Run]:
    """How to run the network by each library that is installed; all its layers have the same bias and clip at once."""
    ways = {"numba": _numba, "graphblas": _graphblas, "torch": _torch}
    return {name: make(network) for name, make in ways.items() if importlib.util.find_spec(name) is not None}


def _bias(network: Network) -> float:
    biases = {float(value) for layer in network.layers for value in np.unique(layer.bias)}
    if len(biases) != 1:
        raise ValueError("this comparison is for networks of one bias")
    return biases.pop()


def _living(inputs: sp.csr_array) -> Samples:
    return np.flatnonzero(np.diff(inputs.indptr)).astype(np.int32)


def _numba(network: Network) -> Run:
    def multiply(indptr: Any, indices: Any, data: Any, bias: Any, bound: Any, x: Any, z: Any) -> None:
        for start in range(0, x.shape[1], _TILE):
            stop = min(start + _TILE, x.shape[1])
            for row in range(z.shape[0]):
                z[row, start:stop] = bias
                for k in range(indptr[row], indptr[row + 1]):
                    weight, column = data[k], indices[k]
                    for sample in range(start, stop):
                        z[row, sample] += weight * x[column, sample]
                for sample in range(start, stop):
                    z[row, sample] = min(max(z[row, sample], np.float32(0)), bound)

    compiled = importlib.import_module("numba").njit(nogil=True)(multiply)
    bias = np.float32(_bias(network))
    layers = [(layer.weights, np.float32(layer.activation.parameter)) for layer in network.layers]

    def run(inputs: sp.csr_array) -> Samples:
        samples = _living(inputs)
        x = np.ascontiguousarray(inputs[samples].toarray().T)
        for weights, bound in layers:
            z = np.empty((weights.shape[0], x.shape[1]), np.float32)
            compiled(weights.indptr, weights.indices, weights.data, bias, bound, x, z)
            live = z.any(axis=0)
            if np.count_nonzero(live) <= _WORTH_CUTTING * live.size:
                z, samples = np.ascontiguousarray(z[:, live]), samples[live]
            x = z
        return samples[x.any(axis=0)]

    return run


def _torch(network: Network) -> Run:
    torch = importlib.import_module("torch")
    bias = _bias(network)
    with warnings.catch_warnings():
        # That its CSR tensors are in beta.
        warnings.simplefilter("ignore", UserWarning)
        layers = [
            (
                torch.sparse_csr_tensor(
                    *(torch.from_numpy(part) for part in (weights.indptr, weights.indices, weights.data)), weights.shape
                ),
                layer.activation.parameter,
            )
            for layer in network.layers
            for weights in [layer.weights]
        ]

    def run(inputs: sp.csr_array) -> Samples:
        torch.set_num_threads(1)
        samples = _living(inputs)
        x = torch.from_numpy(np.ascontiguousarray(inputs[samples].toarray().T))
        for weights, bound in layers:
            x = (weights @ x).add_(bias).clamp_(0, bound)
            live = (x != 0).any(dim=0).numpy()
            if np.count_nonzero(live) <= _WORTH_CUTTING * live.size:
                x, samples = x[:, torch.from_numpy(live)].contiguous(), samples[live]
        alive: Samples = samples[(x != 0).any(dim=0).numpy()]
        return alive

    return run


def _graphblas(network: Network) -> Run:
    graphblas = importlib.import_module("graphblas")
    bias = _bias(network)
    layers = [
        (graphblas.io.from_scipy_sparse(sp.csr_array(layer.weights.T)), layer.activation.parameter)
        for layer in network.layers
    ]

    def run(inputs: sp.csr_array) -> Samples:
        graphblas.ss.config["nthreads"] = 1
        y = graphblas.io.from_scipy_sparse(inputs)
        for weights, bound in layers:
            z = y.mxm(weights, graphblas.semiring.plus_times).new(dtype="FP32")
            z << z.apply(graphblas.binary.plus, right=np.float32(bias))
            z << z.select(">", 0)
            z << z.apply(graphblas.binary.min, right=np.float32(bound))
            y = z
        return np.unique(y.to_coo(values=False)[0]).astype(np.int32)

    return run
