"""What client and workers hand each other through the store: inputs, outputs, and how a run ended.

Keys, all under ``runs/{run}/``: ``inputs/{batch}``, ``outputs/{batch}/{rank}``, ``claims/{rank}``, ``end/done`` or
``end/failed-{rank}``.

The inputs of a batch are one object, written once whatever the number of workers: strips of consecutive samples, and
each strip in segments of consecutive neurons. A worker reads, strip by strip, those segments that hold rows it needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from fsdcore.arrays import Int32s
from fsdcore.contracts.channel import Slot
from fsdcore.contracts.store import Store
from fsdcore.decoding import converted, from_json
from fsdcore.errors import FsdError, PreconditionError, WireError
from fsdcore.kernels.base import SAMPLES_TOGETHER, SparseRows, Strip
from fsdcore.messages.frames import DATA, Body, build_frames, parse_frame
from fsdcore.messages.rows import Rows, decode_rows
from fsdcore.messages.segments import (
    Arrays,
    SegmentReader,
    compress_segment,
    pack_arrays,
    pack_segments,
    unpack_arrays,
)
from fsdcore.record.record import WorkerRecord

if TYPE_CHECKING:
    import scipy.sparse as sp

# A strip has about so many nonzeros, or the fewest samples that a kernel takes at a time; a segment of it so many.
_STRIP_NONZEROS = 1 << 20
_SEGMENT_NONZEROS = 1 << 18
_WHOLE = 1 << 40

_Kind = TypeVar("_Kind")


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker failed. `at` is in wall-clock seconds; `trace` is a traceback for errors that are bugs."""

    rank: int
    error: str
    message: str
    at: float
    layer: int | None = None
    batch: int | None = None
    peer: int | None = None
    trace: str = ""


def claim(store: Store, run: str, rank: int) -> bool:
    """Take (run, rank) for this worker; False if another has it."""
    try:
        store.put(f"runs/{run}/claims/{rank}", b"", if_absent=True)
    except PreconditionError:
        return False
    return True


def _strips(inputs: sp.csr_array) -> list[int]:
    """Where to cut the samples into strips, each of which kernels can take alone."""
    ends = [0]
    at = np.append(inputs.indptr[:-1:SAMPLES_TOGETHER], inputs.indptr[-1]).astype(np.int64)
    first = 0
    while first < at.size - 1:
        beyond = int(np.searchsorted(at, at[first] + _STRIP_NONZEROS, side="right"))
        first = max(first + 1, beyond - 1)
        ends.append(min(first * SAMPLES_TOGETHER, int(inputs.shape[0])))
    return ends


def _bounds(rows: sp.csr_array) -> list[int]:
    """Where to cut the rows into segments."""
    marks = np.arange(_SEGMENT_NONZEROS, rows.nnz, _SEGMENT_NONZEROS)
    inner = np.unique(np.searchsorted(rows.indptr, marks))
    return [0, *(int(b) for b in inner if 0 < b < rows.shape[0]), int(rows.shape[0])]


def _segment(rows: sp.csr_array) -> Arrays:
    same = rows.nnz > 0 and bool((rows.data == rows.data[0]).all())
    data = rows.data[:1] if same else rows.data
    counts = np.diff(rows.indptr).astype(np.int32)
    return {"counts": counts, "samples": rows.indices.astype(np.int32, copy=False), "data": data}


def write_inputs(store: Store, run: str, batch: int, inputs: sp.csr_array) -> None:
    """Write the inputs of a batch, CSR `(samples, neurons)`."""
    segments: list[tuple[bytes, int]] = []
    about = _About([], [])
    for start, stop in itertools.pairwise(_strips(inputs)):
        rows = inputs[start:stop].T.tocsr()
        rows.sort_indices()
        bounds = _bounds(rows)
        segments += [compress_segment(pack_arrays(_segment(rows[a:b]))) for a, b in itertools.pairwise(bounds)]
        about.samples.append(stop - start)
        about.bounds.append(bounds)
    store.put(f"runs/{run}/inputs/{batch}", pack_segments(segments, msgspec.to_builtins(about)))


class _About(msgspec.Struct, frozen=True):
    """What the object of a batch says of itself: of each strip its samples, and where its segments begin and end."""

    samples: list[int]
    bounds: list[list[int]]


def _about(reader: SegmentReader, batch: int, samples: int) -> _About:
    """The strips and their segments, checked."""
    about = converted(
        reader.about, _About, lambda reason: WireError(f"the inputs of batch {batch} are damaged: {reason}")
    )
    if sum(about.samples) != samples:
        raise WireError(f"the inputs of batch {batch} have {sum(about.samples)} samples, not {samples}")
    whole = min(about.samples, default=1) > 0 and not any(count % SAMPLES_TOGETHER for count in about.samples[:-1])
    meet = all(bounds[:1] == [0] and bounds[-1:] == about.bounds[0][-1:] for bounds in about.bounds)
    rising = all(low <= high for bounds in about.bounds for low, high in itertools.pairwise([*bounds, 2**31 - 1]))
    segments = sum(len(bounds) - 1 for bounds in about.bounds)
    if not (whole and meet and rising) or len(about.bounds) != len(about.samples) or segments != len(reader):
        raise WireError(f"the inputs of batch {batch} are damaged: their segments do not meet")
    return about


_ARRAYS = {"counts": "int32", "samples": "int32", "data": "float32"}


def _rows(arrays: Arrays, neurons: int, samples: int) -> SparseRows:
    """A segment of `neurons` rows, checked: kernels read out of bounds where indices lie."""
    found = {name: (array.dtype.name, array.ndim) for name, array in arrays.items()}
    if any(found.get(name) != (kind, 1) for name, kind in _ARRAYS.items()):
        raise WireError("a segment of inputs that lacks what it needs")
    counts, columns, data = (arrays[name] for name in _ARRAYS)
    indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    sound = (
        counts.size == neurons
        and counts.min(initial=0) >= 0
        and indptr[-1] == columns.size
        and (columns.size == 0 or 0 <= int(columns.min()) <= int(columns.max()) < samples)
        and data.size in ({1, columns.size} if columns.size else {0})
    )
    if not sound:
        raise WireError("a segment of inputs that contradicts itself")
    return SparseRows(indptr, columns, np.broadcast_to(data, columns.shape))


def _pick(segment: SparseRows, rows: Int32s) -> SparseRows:
    starts, lengths = segment.indptr[:-1][rows], np.diff(segment.indptr)[rows]
    # Slices, which are copied at the speed of memory, as an index for each value would not be.
    slices = [slice(start, start + length) for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)]
    return SparseRows(
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([np.empty(0, np.int32), *(segment.indices[each] for each in slices)]),
        np.concatenate([np.empty(0, np.float32), *(segment.data[each] for each in slices)]),
    )


def _stacked(parts: list[SparseRows]) -> SparseRows:
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([np.empty(0, np.int64), *(np.diff(part.indptr) for part in parts)])
    return SparseRows(
        np.concatenate([[0], np.cumsum(counts)]),
        np.concatenate([np.empty(0, np.int32), *(part.indices for part in parts)]),
        np.concatenate([np.empty(0, np.float32), *(part.data for part in parts)]),
    )


def read_inputs(store: Store, run: str, batch: int, rows: Int32s, samples: int) -> Iterator[Strip]:
    """The given input neurons of a batch, strip by strip, each CSR `(len(rows), samples of the strip)`.

    `WireError`, at the latest when the damage is come to, if the object is damaged.
    """
    reader = SegmentReader(store, f"runs/{run}/inputs/{batch}")
    about = _about(reader, batch, samples)
    start = number = 0
    for count, listed in zip(about.samples, about.bounds, strict=True):
        bounds = np.array(listed, np.int32)
        if rows.size and rows.max() >= bounds[-1]:
            raise WireError(
                f"the inputs of batch {batch} have {bounds[-1]} neurons, the plan reads neuron {rows.max()}"
            )
        yield Strip(start, count, _read_strip(reader, number, bounds, rows, count))
        start, number = start + count, number + bounds.size - 1


def _read_strip(reader: SegmentReader, first: int, bounds: Int32s, rows: Int32s, samples: int) -> SparseRows:
    """The rows of a strip, whose segments are numbered from `first`."""
    home = np.searchsorted(bounds, rows, side="right") - 1
    needed = np.unique(home)
    parts: list[SparseRows] = []
    for number, segment in zip(needed.tolist(), reader.read((first + needed).tolist()), strict=True):
        size = int(bounds[number + 1] - bounds[number])
        segment_rows = _rows(unpack_arrays(segment), size, samples)
        parts.append(_pick(segment_rows, rows[home == number] - bounds[number]))
    return _stacked(parts)


def write_outputs(store: Store, run: str, batch: int, rank: int, body: Body) -> None:
    """Write one rank's rows of the last activations, encoded by `encode_rows`."""
    (frame,) = build_frames(run, Slot(DATA, batch, 0), rank, rank, body, _WHOLE)
    store.put(f"runs/{run}/outputs/{batch}/{rank}", frame)


def read_outputs(store: Store, run: str, batch: int, rank: int, rows: int, samples: int) -> Rows:
    """What `write_outputs` wrote; `WireError` if it is damaged."""
    frame = parse_frame(store.get(f"runs/{run}/outputs/{batch}/{rank}"))
    if (frame.run, frame.slot.batch, frame.source) != (run, batch, rank):
        raise WireError(f"the outputs of batch {batch} of rank {rank} are those of another")
    return decode_rows(Body(frame.encoding, bytes(frame.data)), rows, samples)


def write_done(store: Store, run: str, records: list[WorkerRecord]) -> None:
    """Say that the run is done."""
    store.put(f"runs/{run}/end/done", msgspec.json.encode(records))


def read_done(store: Store, run: str) -> list[WorkerRecord]:
    """What every worker did; `WireError` if the object is damaged."""
    key = f"runs/{run}/end/done"
    records = _decoded(store, key, list[WorkerRecord])
    if not all(record.whole for record in records):
        raise WireError(f"object {key} is damaged: a record does not have all counters and seconds")
    return records


def write_failure(store: Store, run: str, failure: Failure) -> None:
    """Say that a worker failed."""
    store.put(f"runs/{run}/end/failed-{failure.rank}", msgspec.json.encode(failure))


def read_failure(store: Store, key: str) -> Failure:
    """What `write_failure` wrote at `key`; `WireError` if it is damaged."""
    return _decoded(store, key, Failure)


def _decoded(store: Store, key: str, kind: type[_Kind]) -> _Kind:
    return from_json(store.get(key), kind, lambda reason: WireError(f"object {key} is damaged: {reason}"))


def failure_of(error: BaseException, rank: int, at: float, trace: str = "") -> Failure:
    """The failure that tells of `error`."""
    where = error if isinstance(error, FsdError) else FsdError("")
    message = error.message if isinstance(error, FsdError) else str(error)
    return Failure(
        rank=rank,
        error=type(error).__name__,
        message=message,
        at=at,
        layer=where.layer,
        batch=where.batch,
        peer=where.peer,
        trace=trace,
    )
