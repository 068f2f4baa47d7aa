"""Row messages: round trips to the bit, their size, and hostile bytes."""

from __future__ import annotations

import random
import struct
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.errors import FrameTooLargeError, WireError
from fsdcore.messages.frames import PLAIN, ROWS, ZSTD, Body
from fsdcore.messages.rows import RowEncoder, Rows, decode_rows, encode_rows, open_rows
from fsdcore.messages.sample_lists import ALL, BITMAP, RICE, Columns, decode_columns, encode_columns
from fsdcore.messages.zstd import compress

KINDS = ["random", "few values", "one value", "twins", "special", "zero"]


def some_values(kind: str, rows: int, columns: int, density: float, seed: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, columns)).astype(np.float32)
    if kind == "few values":
        values = rng.integers(1, 9, values.shape).astype(np.float32)
    elif kind == "one value":
        values[:] = 32
    elif kind == "twins" and rows:
        values = values[rng.integers(0, max(1, rows // 3), rows)]
    elif kind == "special":
        values = rng.choice(np.array([np.nan, np.inf, -np.inf, 1e-45, 3.4e38], np.float32), values.shape)
    elif kind == "zero":
        values[:] = 0
    values[rng.random(values.shape) >= density] = 0
    return values


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[Rows, int]:
    samples, count = draw(st.integers(0, 90)), draw(st.integers(0, 12))
    columns = np.array(sorted(draw(st.sets(st.integers(0, max(0, samples - 1)), max_size=samples))), np.int32)
    columns = columns[columns < samples]
    density = draw(st.sampled_from([0.1, 0.5, 1.0]))
    kind, seed = draw(st.sampled_from(KINDS)), draw(st.integers(0, 99))
    return Rows(columns, some_values(kind, count, columns.size, density, seed)), samples


def spread(rows: Rows, samples: int) -> npt.NDArray[np.float32]:
    full = np.zeros((rows.values.shape[0], samples), np.float32)
    full[:, rows.columns] = rows.values
    return full


@given(some_rows())
@settings(max_examples=300)
def test_rows_come_back_to_the_bit(case: tuple[Rows, int]) -> None:
    rows, samples = case
    encoded = encode_rows(rows, samples)
    decoded = decode_rows(encoded.body, rows.values.shape[0], samples)
    assert spread(decoded, samples).tobytes() == spread(rows, samples).tobytes()
    assert encoded.nonzeros == np.count_nonzero(rows.values)
    assert encoded.rows == np.count_nonzero(rows.values.any(axis=1))
    assert bool(encoded.body.data) == bool(encoded.nonzeros)


@given(some_rows(), st.randoms(use_true_random=False))
def test_some_of_the_rows_are_as_if_they_were_all(case: tuple[Rows, int], rng: random.Random) -> None:
    rows, samples = case
    count = rows.values.shape[0]
    positions = np.array(sorted(rng.sample(range(count), rng.randint(0, count))), np.int32)
    some = RowEncoder(rows, samples).encode(positions)
    decoded = decode_rows(some.body, positions.size, samples)
    assert spread(decoded, samples).tobytes() == spread(Rows(rows.columns, rows.values[positions]), samples).tobytes()
    assert some.nonzeros == np.count_nonzero(rows.values[positions])


@given(some_rows(), st.integers(0, 99))
def test_equal_rows_are_decoded_once(case: tuple[Rows, int], seed: int) -> None:
    rows, samples = case
    repeated = np.random.default_rng(seed).integers(0, len(rows.values), 20) if len(rows.values) else np.empty(0, int)
    again = Rows(rows.columns, rows.values[repeated])
    table = open_rows(encode_rows(again, samples).body, repeated.size, samples).table()
    live = again.values[again.values.any(axis=1)]
    if live.size:
        assert table.values.shape[0] == len({row.tobytes() for row in again.values})
    assert spread(table.rows(), samples).tobytes() == spread(again, samples).tobytes()


@given(some_rows(), st.lists(st.sampled_from(["again", "others", "fewer", "none"]), max_size=6))
def test_a_list_of_columns_is_written_when_it_changes(case: tuple[Rows, int], steps: list[str]) -> None:
    rows, samples = case
    sent: Columns | None = None
    seen: Columns | None = None
    for step in steps:
        values = rows.values.copy()
        if step == "others":
            values[:, ::2] = 0
        elif step == "fewer":
            values[:, 1:] = 0
        elif step == "none":
            values[:] = 0
        encoded = RowEncoder(Rows(rows.columns, values), samples).encode(None, sent)
        message = open_rows(encoded.body, values.shape[0], samples, seen)
        decoded = message.table().rows()
        assert spread(decoded, samples).tobytes() == spread(Rows(rows.columns, values), samples).tobytes()
        sent = sent if encoded.columns is None else encoded.columns
        seen = message.columns if message.columns.size else seen


def test_columns_that_are_not_known_are_refused() -> None:
    rows = Rows(np.array([3, 7, 50], np.int32), np.ones((2, 3), np.float32))
    first = encode_rows(rows, 100)
    again = RowEncoder(rows, 100).encode(None, first.columns).body
    assert len(again.data) < len(first.body.data)
    for before in (None, np.arange(2, dtype=np.int32)):
        with pytest.raises(WireError, match="of another"):
            open_rows(again, 2, 100, before)


@given(st.integers(1, 20), st.integers(1, 400), st.floats(0, 0.15), st.booleans(), st.integers(0, 99))
def test_few_values_come_back(count: int, width: int, density: float, equal: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((count, width)) < density, 5 if equal else rng.normal(size=(count, width)), 0)
    rows = Rows(np.arange(width, dtype=np.int32), values.astype(np.float32))
    decoded = decode_rows(encode_rows(rows, width).body, count, width)
    assert spread(decoded, width).tobytes() == spread(rows, width).tobytes()


@pytest.mark.parametrize(("density", "of_bitmap"), [(0.001, 0.1), (0.01, 0.15), (0.1, 0.6), (0.5, 1.1), (1.0, 0.1)])
def test_where_values_are_takes_what_their_density_needs(density: float, of_bitmap: float) -> None:
    rng = np.random.default_rng(6)
    values = np.where(rng.random((64, 4_000)) < density, np.float32(7), np.float32(0))
    # One value in every column, so that no column is left out.
    values[0] = 7
    body = encode_rows(Rows(np.arange(4_000, dtype=np.int32), values), 4_000).body
    assert len(body.data) < of_bitmap * values.size / 8
    np.testing.assert_array_equal(decode_rows(body, 64, 4_000).values, values)


def test_columns_among_those_before_are_written_as_such() -> None:
    rng = np.random.default_rng(5)
    before = np.sort(rng.choice(10_000, 600, replace=False)).astype(np.int32)
    fewer, others = np.delete(before, [7, 100, 333]), np.union1d(before[:-1], [9_999, 1]).astype(np.int32)
    sizes = {}
    for name, columns in (("same", before), ("fewer", fewer), ("others", others)):
        rows = Rows(columns, np.full((3, columns.size), 2, np.float32))
        body = RowEncoder(rows, 10_000).encode(None, before).body
        message = open_rows(body, 3, 10_000, before)
        np.testing.assert_array_equal(message.columns, columns)
        sizes[name] = len(body.data)
    assert sizes["same"] < sizes["fewer"] < sizes["same"] + 80 < sizes["others"]


@given(st.integers(0, 3_000), st.floats(0, 1), st.integers(0, 99))
def test_columns_come_back_in_no_more_than_a_bitmap(samples: int, share: float, seed: int) -> None:
    columns = np.flatnonzero(np.random.default_rng(seed).random(samples) < share).astype(np.int32)
    form, data = encode_columns(columns, samples)
    assert len(data) <= (samples + 7) // 8 + 1
    np.testing.assert_array_equal(decode_columns(form, memoryview(data), columns.size, samples), columns)


def test_the_form_of_the_columns_is_the_shortest() -> None:
    rng = np.random.default_rng(0)
    assert encode_columns(np.arange(1_000, dtype=np.int32), 1_000) == (ALL, b"")
    half = np.flatnonzero(rng.random(1_000) < 0.5).astype(np.int32)
    assert encode_columns(half, 1_000)[0] == BITMAP
    few = np.sort(rng.choice(10_000, 337, replace=False)).astype(np.int32)
    form, data = encode_columns(few, 10_000)
    # 266 bytes is the entropy of such a choice.
    assert form == RICE
    assert len(data) < 280


def test_equal_rows_and_few_values_cost_little() -> None:
    values = np.tile(np.random.default_rng(0).normal(size=(1, 2_000)).astype(np.float32), (16, 1))
    columns = np.arange(2_000, dtype=np.int32)
    one = len(encode_rows(Rows(columns, values[:1]), 2_000).body.data)
    assert len(encode_rows(Rows(columns, values), 2_000).body.data) < one + 40
    assert len(encode_rows(Rows(columns, np.full((16, 2_000), 32, np.float32)), 2_000).body.data) < 40


def test_rows_are_the_same_bytes_every_time() -> None:
    values = some_values("twins", 40, 300, 0.7, 1)
    rows = Rows(np.arange(300, dtype=np.int32), values)
    assert len({encode_rows(rows, 300).body for _ in range(3)}) == 1


@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.parametrize("density", [0.04, 0.4, 1.0])
def test_ten_thousand_mutated_messages_stay_within_bounds(kind: str, density: float) -> None:
    rows, samples, rng = 9, 100, random.Random(f"{kind} {density}")
    values = some_values(kind, rows, 70, density, 1)
    good = encode_rows(Rows(np.arange(5, 75, dtype=np.int32), values), samples).body.data
    for _ in range(10_000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(16 if rng.random() < 0.5 else len(data))] = rng.randrange(256)
        data = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data
        try:
            decoded = decode_rows(Body(ROWS, bytes(data)), rows, samples)
        except WireError as error:
            assert "\n" not in str(error)
            continue
        assert decoded.values.shape == (rows, decoded.columns.size)
        assert decoded.values.dtype == np.float32
        if decoded.columns.size:
            assert (np.diff(decoded.columns) > 0).all()
            assert 0 <= decoded.columns[0] <= decoded.columns[-1] < samples


@given(st.binary(max_size=300), st.integers(0, 5), st.integers(0, 50))
@settings(max_examples=300)
def test_any_bytes_are_decoded_or_refused(data: bytes, rows: int, samples: int) -> None:
    try:
        decoded = decode_rows(Body(ROWS, data), rows, samples)
    except WireError:
        return
    assert decoded.values.shape == (rows, decoded.columns.size)


@pytest.mark.parametrize("encoding", [PLAIN, ZSTD])
def test_what_is_not_rows_is_refused(encoding: int) -> None:
    with pytest.raises(WireError, match="where rows were expected"):
        decode_rows(Body(encoding, b"something"), 3, 10)


def test_a_bomb_is_refused_in_bounded_memory() -> None:
    rows = Rows(np.arange(100, dtype=np.int32), np.ones((10, 100), np.float32))
    head = bytearray(encode_rows(rows, 100).body.data[:12])
    head[1] = 0x08
    bomb = Body(ROWS, bytes(head) + compress(bytes(1 << 28), 19))
    tracemalloc.start()
    with pytest.raises(WireError, match="expand"):
        decode_rows(bomb, 10, 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_counts_beyond_their_fields_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As more than 2^32 nonzeros of a message are, which no test could hold."""
    monkeypatch.setattr("fsdcore.messages.rows._WIDE", struct.Struct("<BBHHHHH"))
    rows = Rows(np.arange(300, dtype=np.int32), np.arange(1, 90_001, dtype=np.float32).reshape(300, 300))
    with pytest.raises(FrameTooLargeError, match=r"300 rows .* use smaller batches"):
        encode_rows(rows, 300)


def test_long_lists_of_samples_are_not_remembered() -> None:
    rng, samples = np.random.default_rng(0), 200_000
    lists = [np.flatnonzero(rng.random(samples) < 0.3).astype(np.int32) for _ in range(4)]
    tracemalloc.start()
    try:
        for columns in lists:
            form, data = encode_columns(columns, samples)
            assert np.array_equal(decode_columns(form, memoryview(data), columns.size, samples), columns)
        del form, data
        assert tracemalloc.get_traced_memory()[0] < lists[0].nbytes
    finally:
        tracemalloc.stop()
