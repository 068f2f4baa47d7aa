"""The network and inputs that are measured."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

import fsdcore as fsd
from fsdcore.network.activations import clipped_relu
from fsdcore.network.formats import load_inputs
from fsdcore.network.generate import digits, radixnet
from fsdcore.network.network import Layer, Network
from fsdcore.partition.files import load_partition, save_partition

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "graphchallenge-1024"
_CACHE = Path("bench-results") / "partitions"


class Workload(NamedTuple):
    """What to run, and what it is called."""

    name: str
    network: Network
    inputs: sp.csr_array


def workload(layers: int = 120) -> Workload:
    """The real Graph Challenge network of 1,024 neurons if its data lie beside the project, else a generated one."""
    if not DATA.is_dir():
        return Workload("generated 1,024 neurons", radixnet(1024, layers), digits(10_000, 1024))
    with np.load(DATA / "weights.npz") as archive:
        outputs = archive["indices"][:layers]
    inputs = np.repeat(np.arange(1024), outputs.shape[2])
    weights = np.full(inputs.size, 1 / 16, np.float32)
    network = Network(
        Layer(sp.csr_array((weights, (each.ravel(), inputs)), shape=(1024, 1024)), -0.3, clipped_relu(32))
        for each in outputs
    )
    return Workload("Graph Challenge 1,024 neurons", network, load_inputs(DATA / "images-10000.npz"))


def split(job: Workload, workers: int, folder: Path = _CACHE) -> fsd.Partition:
    """The hypergraph partition of the network, kept in a folder between benchmarks."""
    file = folder / f"{job.network.fingerprint[:16]}-{workers}.npz"
    if file.is_file():
        return load_partition(file)
    partition = fsd.make_partition(job.network, workers)
    folder.mkdir(parents=True, exist_ok=True)
    save_partition(file, partition)
    return partition


def generated(neurons: int, samples: int, layers: int = 120) -> Workload:
    """A generated network and inputs."""
    return Workload(f"generated {neurons:,} neurons", radixnet(neurons, layers), digits(samples, neurons))
