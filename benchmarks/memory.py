"""``python -m benchmarks memory``: the peak memory of each worker, every one a process of its own.

The bound it is compared with is the worker's weights, 2.5 times its activations of all samples under way, and 100 MB
for the interpreter and the libraries. Besides the Graph Challenge's network, whose rows repeat, it is measured on
random weights and inputs, of which a share of the values is live in every layer: nothing repeats, little compresses.
"""

from __future__ import annotations

import tempfile

import numpy as np
import scipy.sparse as sp

from benchmarks.processes import client_backend
from benchmarks.tables import Table
from fsd_local import LocalSettings
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.network.activations import RELU
from fsdcore.network.generate import digits, radixnet
from fsdcore.network.network import Layer, Network

# Weights of a neuron of the random networks.
_FAN_IN = 16


def random_network(neurons: int, layers: int, samples: int, share: float) -> tuple[Network, sp.csr_array]:
    """A network of random weights, 16 to a neuron, biased so that `share` of the values of each layer are live."""
    rng = np.random.default_rng(0)
    inputs = sp.csr_array(sp.random_array((samples, neurons), density=share, dtype=np.float32, rng=rng))
    made, y = [], sp.csr_array(inputs[:200])
    for _ in range(layers):
        columns = np.stack([rng.choice(neurons, _FAN_IN, replace=False) for _ in range(neurons)])
        values = rng.normal(size=columns.size).astype(np.float32)
        starts = np.arange(0, columns.size + 1, _FAN_IN)
        weights = sp.csr_array((values, columns.ravel(), starts), shape=(neurons, neurons))
        sums = (y @ weights.T).toarray()
        least = max(float(np.quantile(sums, 1 - share)), 1e-3)
        scale = np.float32(1 / max(1e-6, float((sums[sums > least] - least).std())))
        made.append(Layer(weights * scale, float(-least * scale), RELU))
        y = made[-1].step(y)
    return Network(made), inputs


def _measure(title: str, network: Network, inputs: sp.csr_array, workers: int, in_flight: int = 1) -> Table:
    samples = int(inputs.shape[0])
    with tempfile.TemporaryDirectory() as root:
        backend = client_backend(LocalSettings(path=root))
        settings = RunSettings(
            channel="object", workers=workers, method="block", in_flight=in_flight, deadline_seconds=600.0
        )
        with Session(backend, settings) as session:
            model = session.load(network)
            quality = model.quality
            record = model.run(inputs, batch_size=-(-samples // in_flight)).record
            owners = model.partition.owners[1:]
    rows = []
    for worker in record.per_worker:
        held = max(int(np.count_nonzero(owner == worker.rank)) for owner in owners) * samples * 4 / 1e6
        weights = quality.memory_bytes[worker.rank] / 1e6
        bound, peak = weights + 2.5 * held + 100, worker.peak_memory_bytes / 1e6
        rows.append((worker.rank, weights, held, bound, peak, "within" if peak <= bound else "OVER"))
    title = f"{title}, {len(network)} layers, {samples:,} samples, {workers} workers, {in_flight} batches in flight"
    columns = ("rank", "weights MB", "activations MB", "bound MB", "peak MB", "")
    return Table(title, columns, tuple(rows), "Bound: weights, 2.5 times the activations, and 100 MB.")


def measure(quick: bool) -> list[Table]:
    """A large layer of the Graph Challenge's network over 8 workers, and random networks over 2 and 8."""
    neurons, layers, samples = (4_096, 24, 1_000) if quick else (16_384, 120, 2_000)
    title = f"Memory of workers, {neurons:,} neurons"
    tables = [_measure(title, radixnet(neurons, layers), digits(samples, neurons), 8)]
    neurons, layers, samples = (1_024, 4, 2_000) if quick else (4_096, 24, 8_192)
    for share in (0.08, 0.48):
        network, inputs = random_network(neurons, layers, samples, share)
        title = f"Memory of workers, {neurons:,} neurons, {share:.0%} of random values live"
        tables += [_measure(title, network, inputs, workers, count) for workers, count in ((2, 1), (8, 1), (8, 4))]
    return tables
