"""``python -m benchmarks encoding``: what the messages of a run take, on real activations and on random values.

The same rows are encoded in several ways: as the authors of FSD-Inference do (three float32 a nonzero, zlib, as Python
text), as plain CSR, with byte planes, and as this project does. In the stress set every nonzero of some layers has
been replaced by a random float32, so nothing repeats.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

import fsdcore as fsd
from benchmarks.tables import Table
from benchmarks.workload import Workload, split, workload
from fsd_local import LocalBackend
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.messages.frames import HEADER_BYTES
from fsdcore.messages.rows import RowEncoder, Rows, open_rows
from fsdcore.messages.sample_lists import Columns
from fsdcore.messages.zstd import compress
from fsdcore.plan.files import read_rank, write_plan

_STRESSED = (1, 3, 7, 12, 20, 60)
_CHUNK = 40_000

Floats = npt.NDArray[np.float32]


class _Layer(NamedTuple):
    """What one rank sends of the activations `boundary`: its live rows, and the rows of each target."""

    boundary: int
    rank: int
    rows: Rows
    targets: list[tuple[int, npt.NDArray[np.int32]]]


def payloads(job: Workload, partition: fsd.Partition) -> Iterator[_Layer]:
    """All that is sent, layer by layer."""
    backend = LocalBackend()
    write_plan(backend.store, "bench", job.network, partition)
    ranks = [
        read_rank(backend.store, "bench", rank, partition.workers, SYSTEM_CLOCK) for rank in range(partition.workers)
    ]
    x = job.inputs
    for number, layer in enumerate(job.network.layers[:-1], start=1):
        x = layer.step(x)
        by_neuron = sp.csr_array(x.T)
        for rank, part in enumerate(ranks):
            values = by_neuron[np.flatnonzero(partition.owners[number] == rank)].toarray()
            live = np.flatnonzero(values.any(axis=0)).astype(np.int32)
            targets = [(send.rank, send.rows) for send in part.layers[number].sends]
            yield _Layer(number, rank, Rows(live, np.ascontiguousarray(values[:, live])), targets)


def stressed(layers: Iterator[_Layer]) -> Iterator[_Layer]:
    """Some of the layers, every nonzero replaced by a random value."""
    rng = np.random.default_rng(0)
    for layer in layers:
        if layer.boundary in _STRESSED:
            values = rng.random(layer.rows.values.shape, dtype=np.float32) * 32
            values[layer.rows.values == 0] = 0
            yield layer._replace(rows=Rows(layer.rows.columns, values))


def _authors(columns: Columns, values: Floats, samples: int) -> bytes:
    del samples
    row, column = np.nonzero(values)
    parts = []
    for start in range(0, row.size, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        triple = (row[chunk], columns[column[chunk]], values[row[chunk], column[chunk]])
        parts.append(zlib.compress(b"".join(part.astype(np.float32).tobytes() for part in triple), 3))
    return b"".join(parts)


def _authors_text(columns: Columns, values: Floats, samples: int) -> bytes:
    return repr(_authors(columns, values, samples)).encode()


def _csr(columns: Columns, values: Floats, samples: int) -> bytes:
    del samples
    row, column = np.nonzero(values)
    counts = np.bincount(row, minlength=values.shape[0]).astype(np.uint32)
    return compress(counts.tobytes() + columns[column].astype(np.uint16).tobytes() + values[row, column].tobytes(), 3)


def _planes(columns: Columns, values: Floats, samples: int) -> bytes:
    present = values != 0
    live = present.any(axis=0)
    columns, values, present = columns[live], values[:, live], present[:, live]
    listed = b"" if columns.size == samples else _shuffled(np.diff(columns, prepend=np.int32(0)))
    bitmap = b"" if present.all() else np.packbits(present).tobytes()
    return compress(listed + bitmap + _shuffled(values[present]), 1)


def _shuffled(array: npt.NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1, 4).T.tobytes()


_OTHERS: dict[str, Callable[[Columns, Floats, int], bytes]] = {
    "authors' encoding, as text": _authors_text,
    "authors' encoding, bytes": _authors,
    "CSR uint16 + float32, zstd 3": _csr,
    "column list, bitmap, byte planes, zstd 1": _planes,
}


class _Tally:
    """Bytes and seconds of each way to encode."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self.bytes = dict.fromkeys([*_OTHERS, "this project, columns written each time", "this project"], 0)
        self.seconds = dict.fromkeys(self.bytes, 0.0)
        self.rows = self.nonzeros = self.messages = 0
        self.decode_seconds = 0.0
        self._last: dict[tuple[int, int], Columns | None] = {}
        self._columns: dict[tuple[int, int], Columns] = {}

    def add(self, layer: _Layer) -> None:
        """Count one rank's messages of one layer."""
        start = time.thread_time()
        encoder = RowEncoder(layer.rows, self._samples)
        self.seconds["this project"] += time.thread_time() - start
        for target, positions in layer.targets:
            start = time.thread_time()
            encoded = encoder.encode(positions, self._last.get((layer.rank, target)))
            self.seconds["this project"] += time.thread_time() - start
            if not encoded.nonzeros:
                continue
            self.bytes["this project"] += len(encoded.body.data)
            self.bytes["this project, columns written each time"] += len(encoder.encode(positions).body.data)
            self.rows, self.nonzeros = self.rows + encoded.rows, self.nonzeros + encoded.nonzeros
            self.messages += 1
            start = time.thread_time()
            message = open_rows(encoded.body, positions.size, self._samples, self._columns.get((layer.rank, target)))
            message.table()
            self.decode_seconds += time.thread_time() - start
            self._last[layer.rank, target] = encoded.columns
            self._columns[layer.rank, target] = message.columns
            self._others(layer.rows.columns, layer.rows.values[positions])

    def _others(self, columns: Columns, values: Floats) -> None:
        for name, encode in _OTHERS.items():
            start = time.thread_time()
            self.bytes[name] += len(encode(columns, values, self._samples))
            self.seconds[name] += time.thread_time() - start


def _table(title: str, tally: _Tally) -> Table:
    text = tally.bytes["authors' encoding, as text"]
    rows = [
        (
            name,
            size,
            size / text,
            tally.seconds[name],
            tally.nonzeros * 8 / 1e6 / tally.seconds[name] if tally.seconds[name] else 0.0,
        )
        for name, size in tally.bytes.items()
    ]
    ours = tally.bytes["this project"]
    as_text = 4 * -(-ours // 3)
    rows.append(("this project, as base64", as_text, as_text / text, 0.0, 0.0))
    what = f"{tally.messages:,} messages, {tally.rows:,} rows, {tally.nonzeros:,} nonzeros"
    note = f"{what}; frames add {HEADER_BYTES} bytes each. Decoding took {tally.decode_seconds:.2f} s."
    return Table(title, ("encoding", "bytes", "of authors' text", "CPU s", "MB/s of nonzeros x 8"), tuple(rows), note)


def measure(quick: bool) -> list[Table]:
    """Real and random values, at 8 workers."""
    job = workload(12 if quick else 120)
    partition = split(job, 8)
    samples = int(job.inputs.shape[0])
    real, random = _Tally(samples), _Tally(samples)
    for layer in payloads(job, partition):
        real.add(layer)
    for layer in stressed(payloads(job, partition)):
        random.add(layer)
    where = ", ".join(map(str, _STRESSED))
    return [
        _table(f"Encoding, {job.name}, 8 workers, real activations", real),
        _table(f"Encoding, the same rows of layers {where} with random float32 values", random),
    ]
