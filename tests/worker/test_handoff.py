"""What client and workers hand each other through the store."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import fsdcore.worker.handoff
from fsd_local.stores import MemoryStore
from fsdcore.arrays import Int32s
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.store import CountingStore
from fsdcore.errors import DeadlineError, KeyMissingError, WireError
from fsdcore.kernels.base import SAMPLES_TOGETHER, SparseRows, Strip
from fsdcore.messages.rows import Rows, encode_rows
from fsdcore.messages.segments import compress_segment, pack_arrays, pack_segments
from fsdcore.record.recorder import Recorder
from fsdcore.testing import random_inputs
from fsdcore.worker.handoff import (
    claim,
    failure_of,
    read_done,
    read_failure,
    read_inputs,
    read_outputs,
    write_done,
    write_failure,
    write_inputs,
    write_outputs,
)

RUN = "00000000000000aa"
KEY = f"runs/{RUN}/inputs/0"


def as_matrix(strips: Iterable[Strip], neurons: int) -> sp.csr_array:
    """What the strips, which must meet, hold: CSR `(rows, samples)`."""
    found, samples = [sp.csr_array((neurons, 0), dtype=np.float32)], 0
    for strip in strips:
        assert strip.start == samples
        assert isinstance(strip.values, SparseRows)
        assert strip.values.data.dtype == np.float32
        values = strip.values
        shape = (values.indptr.size - 1, strip.samples)
        found.append(sp.csr_array((values.data, values.indices, values.indptr), shape=shape))
        samples += strip.samples
    return sp.csr_array(sp.hstack(found, format="csr"))


def all_rows(neurons: int) -> Int32s:
    return np.arange(neurons, dtype=np.int32)


def equal(a: sp.csr_array, b: Any) -> bool:
    return a.shape == b.shape and bool((a.toarray() == b.toarray()).all())


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(0, 9),
    neurons=st.integers(1, 30),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    segment=st.integers(1, 60),
    constant=st.booleans(),
    picked=st.sets(st.integers(0, 29)),
    seed=st.integers(0, 99),
)
def test_any_rows_are_picked_as_by_slicing(
    samples: int, neurons: int, density: float, segment: int, constant: bool, picked: set[int], seed: int
) -> None:
    x = random_inputs(samples, neurons, density, seed)
    if constant:
        x.data[:] = 0.25
    store = MemoryStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsdcore.worker.handoff, "_SEGMENT_NONZEROS", segment)
        write_inputs(store, RUN, 0, x)
    rows = np.array(sorted(row for row in picked if row < neurons), np.int32)
    assert equal(as_matrix(read_inputs(store, RUN, 0, rows, samples), rows.size), sp.csr_array(x.T.tocsr())[rows])


def test_inputs_come_in_strips_that_a_kernel_can_take_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdcore.worker.handoff, "_STRIP_NONZEROS", 400)
    store, x = MemoryStore(), random_inputs(300, 12, 0.2)
    write_inputs(store, RUN, 0, x)
    strips = list(read_inputs(store, RUN, 0, all_rows(12), 300))
    assert len(strips) > 1
    assert all(strip.values.data.size <= 400 and strip.start % SAMPLES_TOGETHER == 0 for strip in strips)
    assert equal(as_matrix(strips, 12), sp.csr_array(x.T.tocsr()))


def test_only_segments_with_rows_that_are_needed_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdcore.worker.handoff, "_SEGMENT_NONZEROS", 400)
    monkeypatch.setattr(fsdcore.messages.segments, "FRONT_BYTES", 512)
    read: list[str] = []
    store, x = MemoryStore(), random_inputs(20, 400, 1.0)
    write_inputs(store, RUN, 0, x)
    counting = CountingStore(store, read.append)
    rows = np.array([3, 390], np.int32)
    assert equal(as_matrix(read_inputs(counting, RUN, 0, rows, 20), 2), sp.csr_array(x.T.tocsr())[rows])
    # The front, and two segments that are far apart.
    assert read == ["gets"] * 3


def test_inputs_of_one_value_take_next_to_no_room() -> None:
    sizes = []
    for values in (np.full(5_000, 0.5), np.random.default_rng(0).random(5_000)):
        store, x = MemoryStore(), random_inputs(100, 100, 0.5)
        x.data[:] = values[: x.nnz]
        write_inputs(store, RUN, 0, x)
        sizes.append(len(store.get(KEY)))
    assert sizes[0] < sizes[1] / 2


def test_batches_do_not_mix() -> None:
    store = MemoryStore()
    batches = [random_inputs(3, 8, seed=batch) for batch in range(2)]
    for batch, x in enumerate(batches):
        write_inputs(store, RUN, batch, x)
    for batch, x in enumerate(batches):
        assert equal(as_matrix(read_inputs(store, RUN, batch, all_rows(8), 3), 8), sp.csr_array(x.T))


def test_inputs_of_another_number_of_samples_are_refused() -> None:
    store = MemoryStore()
    write_inputs(store, RUN, 0, random_inputs(4, 6))
    with pytest.raises(WireError, match="have 4 samples, not 5"):
        list(read_inputs(store, RUN, 0, all_rows(6), 5))
    with pytest.raises(KeyMissingError):
        list(read_inputs(store, RUN, 1, all_rows(6), 4))


X = random_inputs(7, 12, 0.6)


def sound_inputs() -> bytes:
    store = MemoryStore()
    write_inputs(store, RUN, 0, X)
    return store.get(KEY)


SOUND = sound_inputs()


def read_from(data: bytes) -> sp.csr_array:
    store = MemoryStore()
    store.put(KEY, data)
    return as_matrix(read_inputs(store, RUN, 0, all_rows(12), 7), 12)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255), st.booleans())
def test_damaged_inputs_are_refused_or_the_same(at: int, change: int, cut: bool) -> None:
    damaged = bytearray(SOUND[:at] if cut else SOUND)
    if not cut:
        damaged[at] ^= change
    try:
        found = read_from(bytes(damaged))
    except WireError:
        return
    assert equal(found, sp.csr_array(X.T))


def inputs_of(arrays: dict[str, Any], about: dict[str, Any] | None = None) -> bytes:
    """An object of inputs that says what it likes, its checksums right; sound as it is without arguments."""
    counts = np.ones(12, np.int32)
    sound = {"counts": counts, "samples": np.zeros(12, np.int32), "data": np.ones(12, np.float32)}
    segment = {name: value for name, value in (sound | arrays).items() if value is not None}
    said = {"bounds": [[0, 12]], "samples": [7]}
    return pack_segments([compress_segment(pack_arrays(segment))], said if about is None else said | about)


def test_the_objects_made_here_are_like_the_real_ones() -> None:
    assert read_from(inputs_of({})).sum() == 12


@pytest.mark.parametrize(
    "data",
    [
        inputs_of({"counts": None}),
        inputs_of({"data": None}),
        inputs_of({"counts": np.ones(11, np.int32)}),
        inputs_of({"counts": np.ones(13, np.int32)}),
        inputs_of({"counts": np.array([13, -1] + [0] * 10, np.int32)}),
        inputs_of({"counts": np.ones((12, 1), np.int32)}),
        inputs_of({"counts": np.ones(12, np.float32)}),
        inputs_of({"counts": np.full(12, 2**31 - 1, np.int32)}),
        inputs_of({"samples": np.full(12, 7, np.int32)}),
        inputs_of({"samples": np.full(12, -1, np.int32)}),
        inputs_of({"samples": np.full(12, 0.5, np.float32)}),
        inputs_of({"samples": np.zeros((1, 12), np.int32)}),
        inputs_of({"data": np.ones(11, np.float32)}),
        inputs_of({"data": np.ones(0, np.float32)}),
        inputs_of({"data": np.ones((12, 1), np.float32)}),
        inputs_of({"data": np.ones(12, np.complex64)}),
        inputs_of({}, {"bounds": None}),
        inputs_of({}, {"bounds": []}),
        inputs_of({}, {"bounds": [[]]}),
        inputs_of({}, {"bounds": [[0, 11]]}),
        inputs_of({}, {"bounds": [[0, 4, 8, 12]]}),
        inputs_of({}, {"bounds": [[5, 12]]}),
        inputs_of({}, {"bounds": [[0, "x"]]}),
        inputs_of({}, {"bounds": [[0, 2**31]]}),
        inputs_of({}, {"bounds": [0, 12]}),
        inputs_of({}, {"bounds": [[0], [0, 12]]}),
        inputs_of({}, {"samples": [6]}),
        inputs_of({}, {"samples": [3, 4]}),
        inputs_of({}, {"samples": [7, 0]}),
        inputs_of({}, {"samples": [], "bounds": []}),
        inputs_of({}, {"samples": None}),
        pack_segments([], {}),
        b"no inputs at all",
    ],
)
def test_inputs_that_contradict_themselves_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        read_from(data)


def rows_of(values: list[list[float]], columns: list[int]) -> Rows:
    return Rows(np.array(columns, np.int32), np.array(values, np.float32).reshape(len(values), len(columns)))


@pytest.mark.parametrize("rows", [rows_of([[1, 0], [0, -2], [3, 4]], [1, 4]), rows_of([[], [], []], [])])
def test_outputs_come_back(rows: Rows) -> None:
    store = MemoryStore()
    write_outputs(store, RUN, 1, 2, encode_rows(rows, 6).body)
    found = read_outputs(store, RUN, 1, 2, 3, 6)
    assert found.columns.tolist() == rows.columns.tolist()
    assert np.array_equal(found.values, rows.values)


def test_outputs_of_another_place_are_refused() -> None:
    store = MemoryStore()
    body = encode_rows(rows_of([[1, 2]], [0, 1]), 2).body
    write_outputs(store, RUN, 0, 0, body)
    sound = store.get(f"runs/{RUN}/outputs/0/0")
    for run, batch, rank in (("00000000000000bb", 0, 0), (RUN, 1, 0), (RUN, 0, 1)):
        store.put(f"runs/{run}/outputs/{batch}/{rank}", sound)
        with pytest.raises(WireError, match="those of another"):
            read_outputs(store, run, batch, rank, 1, 2)
    with pytest.raises(WireError):
        read_outputs(store, RUN, 0, 0, 2, 2)


@given(st.data())
def test_no_changed_byte_of_the_outputs_goes_unseen(data: st.DataObject) -> None:
    store, key = MemoryStore(), f"runs/{RUN}/outputs/0/0"
    write_outputs(store, RUN, 0, 0, encode_rows(rows_of([[1, 2], [0, 7]], [0, 1]), 2).body)
    damaged = bytearray(store.get(key))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    store.put(key, bytes(damaged))
    with pytest.raises(WireError):
        read_outputs(store, RUN, 0, 0, 2, 2)


def test_one_of_many_claims_a_rank() -> None:
    store = MemoryStore()
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda _: claim(store, RUN, 3), range(24)))
    assert won.count(True) == 1
    assert claim(store, RUN, 4)


def test_the_end_of_a_run_comes_back() -> None:
    store = MemoryStore()
    records = [Recorder(SYSTEM_CLOCK, rank, 2).finish(1_000 + rank) for rank in range(3)]
    write_done(store, RUN, records)
    assert read_done(store, RUN) == records


def test_a_failure_says_where_and_how() -> None:
    store = MemoryStore()
    error = DeadlineError("nothing came", layer=3, batch=1, peer=2)
    write_failure(store, RUN, failure_of(error, 5, 12.5))
    write_failure(store, RUN, failure_of(ValueError("a bug"), 6, 13.5, "the trace"))
    keys = store.list(f"runs/{RUN}/end/failed-")
    expected, bug = (read_failure(store, key) for key in keys)
    assert (expected.rank, expected.error, expected.message) == (5, "DeadlineError", "nothing came")
    assert (expected.layer, expected.batch, expected.peer, expected.at) == (3, 1, 2, 12.5)
    assert (bug.error, bug.message, bug.layer, bug.trace) == ("ValueError", "a bug", None, "the trace")


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b"[1]", b'"text"'])
def test_damaged_ends_are_refused(data: bytes) -> None:
    store = MemoryStore()
    store.put(f"runs/{RUN}/end/done", data)
    with pytest.raises(WireError):
        read_done(store, RUN)
    with pytest.raises(WireError):
        read_failure(store, f"runs/{RUN}/end/done")
