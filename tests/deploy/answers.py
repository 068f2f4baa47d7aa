"""``python answers.py PACKAGE``: what an unpacked package multiplies with, and the bits that come out, hashed."""

from __future__ import annotations

import hashlib
import platform
import sys

sys.path.insert(0, sys.argv[1])

import numpy as np
import scipy.sparse as sp

from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.kernels import kernel_name, make_kernel
from fsdcore.kernels.base import SparseSamples, Strip
from fsdcore.network.network import Layer, Network
from fsdcore.partition import make_partition
from fsdcore.plan.plan import from_arrays, layer_arrays
from fsdcore.record.recorder import Recorder
from fsdcore.worker.loop import BatchLoop, Tools

rng = np.random.default_rng(7)


def matrix(rows: int, columns: int, share: float) -> sp.csr_array:
    dense = np.where(rng.random((rows, columns)) < share, rng.standard_normal((rows, columns)), 0)
    return sp.csr_array(dense.astype(np.float32))


network = Network([Layer(matrix(96, 96, 0.1), 0.05, "relu") for _ in range(6)])
inputs = matrix(70, 96, 0.3)
tools = Tools(make_kernel("compiled", 1), Recorder(SYSTEM_CLOCK, 0, len(network)))
loop = BatchLoop(tools, 0, 70)
for number, (layer, arrays) in enumerate(
    zip(network.layers, layer_arrays(network, make_partition(network, 1, "block")), strict=True), start=1
):
    prepared = tools.kernel.prepare(from_arrays(arrays[0], layer.activation))
    if number == 1:
        loop.first(prepared, [Strip(0, 70, SparseSamples(inputs.indptr, inputs.indices, inputs.data))])
    else:
        assert not list(loop.later(number, prepared))
outputs = loop.outputs()
assert outputs.values.any()
digest = hashlib.sha256(outputs.columns.tobytes() + outputs.values.tobytes()).hexdigest()
sys.stdout.write(f"{platform.machine()} {kernel_name('compiled')}\n{digest}\n")
