"""Plans in a store: whole or not at all, read by rank, and refused when damaged."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fsdcore.messages.segments
from fsd_local.stores import MemoryStore
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import KeyMissingError, PlanError, StoreError, WireError
from fsdcore.messages.segments import SegmentReader, compress_segment, pack_arrays, pack_segments, unpack_arrays
from fsdcore.network.activations import IDENTITY, SOFTMAX, TANH, clipped_relu
from fsdcore.network.network import Layer, Network
from fsdcore.partition import Partition, make_partition
from fsdcore.plan.files import (
    custom_method,
    find_plan,
    open_rank,
    plan_id,
    plan_name,
    read_owners,
    read_partition,
    read_rank,
    write_plan,
)
from fsdcore.plan.plan import Block, LayerPart, from_arrays, layer_arrays
from fsdcore.testing import random_network

WORKERS = 3
PLAN = "a-plan"
NETWORK = random_network((9, 12, 11, 7), (clipped_relu(1.5), TANH), density=0.5)
PARTITION = make_partition(NETWORK, WORKERS, "random", 4)


class RecordingStore(MemoryStore):
    """Remembers what was asked for, and refuses puts once told to."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []
        self.puts_left = 1_000

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        if self.puts_left == 0:
            raise StoreError("made to fail")
        self.puts_left -= 1
        self.requests.append(("put", key))
        super().put(key, data, if_absent)

    def get(self, key: str) -> bytes:
        self.requests.append(("get", key))
        return super().get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        return self.get(key)[start : start + length]

    def list(self, prefix: str) -> list[str]:
        self.requests.append(("list", prefix))
        return super().list(prefix)


def written(network: Network = NETWORK, partition: Partition = PARTITION) -> RecordingStore:
    store = RecordingStore()
    write_plan(store, PLAN, network, partition)
    store.requests.clear()
    return store


def same_block(a: Block, b: Block) -> bool:
    pairs = ((a.data, b.data), (a.indices, b.indices), (a.indptr, b.indptr), (a.order, b.order))
    return a.shape == b.shape and all(np.array_equal(x, y) for x, y in pairs)


def same(a: LayerPart, b: LayerPart) -> bool:
    return (
        same_block(a.local, b.local)
        and [source.rank for source in a.sources] == [source.rank for source in b.sources]
        and all(same_block(x.block, y.block) for x, y in zip(a.sources, b.sources, strict=True))
        and [(send.rank, send.rows.tolist()) for send in a.sends] == [(s.rank, s.rows.tolist()) for s in b.sends]
        and np.array_equal(a.bias, b.bias)
        and (a.activation, a.keeps_zero) == (b.activation, b.keeps_zero)
    )


@settings(max_examples=30, deadline=None)
@given(
    widths=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    workers=st.integers(1, 5),
    density=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 999),
)
def test_every_rank_reads_what_was_planned(widths: list[int], workers: int, density: float, seed: int) -> None:
    network = random_network(widths, (clipped_relu(0.7), IDENTITY), density, seed=seed)
    partition = make_partition(network, workers, "random", seed)
    store = written(network, partition)
    layers = list(layer_arrays(network, partition))
    for rank in range(workers):
        part = read_rank(store, PLAN, rank, workers, SYSTEM_CLOCK)
        expected = [
            from_arrays(arrays[rank], layer.activation) for layer, arrays in zip(network.layers, layers, strict=True)
        ]
        assert (part.rank, part.workers) == (rank, workers)
        assert np.array_equal(part.input_rows, layers[0][rank]["input_rows"])
        assert all(same(found, wanted) for found, wanted in zip(part.layers, expected, strict=True))


def test_a_rank_reads_its_own_object_in_one_request() -> None:
    store = written()
    for rank in range(WORKERS):
        read_rank(store, PLAN, rank, WORKERS, SYSTEM_CLOCK)
        assert store.requests == [("get", f"plans/{PLAN}/{rank}")]
        store.requests.clear()


def test_softmax_on_the_last_layer_is_kept() -> None:
    last = NETWORK.layers[-1]
    network = Network([*NETWORK.layers[:-1], Layer(last.weights, last.bias, SOFTMAX)])
    store = written(network, make_partition(network, WORKERS, "block"))
    assert read_rank(store, PLAN, 1, WORKERS, SYSTEM_CLOCK).layers[-1].activation == SOFTMAX


def test_the_manifest_says_what_the_plan_is_of() -> None:
    store = written()
    manifest = find_plan(store, PLAN)
    assert manifest is not None
    assert (manifest.fingerprint, manifest.widths) == (NETWORK.fingerprint, NETWORK.widths)
    assert (manifest.workers, manifest.method, manifest.seed) == (WORKERS, "random", 4)
    assert manifest.largest_rows == max(int(np.bincount(owners).max()) for owners in PARTITION.owners[1:])
    for rank, memory in enumerate(manifest.memory_bytes):
        part = read_rank(store, PLAN, rank, WORKERS, SYSTEM_CLOCK)
        assert part.memory_bytes <= memory <= part.memory_bytes + 4 * part.input_rows.size + 1_000


def test_the_partition_comes_back() -> None:
    store = written()
    manifest = find_plan(store, PLAN)
    assert manifest is not None
    assert manifest.plan == PLAN
    found = read_partition(store, manifest)
    assert (found.workers, found.method, found.seed) == (WORKERS, "random", 4)
    assert found.fingerprint == NETWORK.fingerprint
    assert [o.tolist() for o in found.owners] == [o.tolist() for o in PARTITION.owners]
    (last,) = read_owners(store, PLAN, [len(NETWORK)])
    assert np.array_equal(last, PARTITION.owners[-1])


def test_a_plan_is_there_whole_or_not_at_all() -> None:
    for puts in range(WORKERS + 2):
        store = RecordingStore()
        store.puts_left = puts
        with pytest.raises(StoreError, match="made to fail"):
            write_plan(store, PLAN, NETWORK, PARTITION)
        assert find_plan(store, PLAN) is None
    store.puts_left = 1_000
    write_plan(store, PLAN, NETWORK, PARTITION)
    assert find_plan(store, PLAN) is not None


def test_a_plan_of_another_version_is_not_found() -> None:
    store = written()
    manifest = find_plan(store, PLAN)
    assert manifest is not None
    newer = msgspec.structs.replace(manifest, version=manifest.version + 1)
    store.put(f"plans/{PLAN}/manifest", msgspec.json.encode(newer))
    assert find_plan(store, PLAN) is None


@pytest.mark.parametrize("data", [b"", b"{}", b"no json", b'{"version": 1}'])
def test_a_damaged_manifest_is_refused_and_says_what_to_delete(data: bytes) -> None:
    store = written()
    store.put(f"plans/{PLAN}/manifest", data)
    with pytest.raises(WireError, match=f"delete plans/{PLAN}/"):
        find_plan(store, PLAN)


def test_a_plan_for_others_is_refused() -> None:
    store = written()
    with pytest.raises(PlanError, match="not a plan for rank 1 of 4"):
        read_rank(store, PLAN, 1, 4, SYSTEM_CLOCK)
    store.put(f"plans/{PLAN}/1", store.get(f"plans/{PLAN}/0"))
    with pytest.raises(PlanError, match="not a plan for rank 1 of 3"):
        read_rank(store, PLAN, 1, WORKERS, SYSTEM_CLOCK)
    with pytest.raises(KeyMissingError):
        read_rank(store, "another", 0, WORKERS, SYSTEM_CLOCK)


def test_a_partition_of_another_network_writes_nothing() -> None:
    store = RecordingStore()
    with pytest.raises(PlanError):
        write_plan(store, PLAN, random_network((9, 12, 11, 7), seed=1), PARTITION)
    assert store.requests == []


SOUND = written().get(f"plans/{PLAN}/1")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SOUND) - 1), st.integers(1, 255), st.booleans())
def test_damaged_bytes_are_refused_or_change_nothing(at: int, change: int, cut: bool) -> None:
    damaged = bytearray(SOUND[:at] if cut else SOUND)
    if not cut:
        damaged[at] ^= change
    store = MemoryStore()
    store.put(f"plans/{PLAN}/1", bytes(damaged))
    try:
        part = read_rank(store, PLAN, 1, WORKERS, SYSTEM_CLOCK)
    except WireError:
        return
    expected = read_rank(written(), PLAN, 1, WORKERS, SYSTEM_CLOCK)
    assert all(same(found, wanted) for found, wanted in zip(part.layers, expected.layers, strict=True))


SAID = {"plan": PLAN, "rank": 1, "workers": WORKERS}


def object_of(about: dict[str, Any], layers: int = 3) -> bytes:
    """The object of rank 1, with `layers` of its segments, and something else said about it."""
    store = MemoryStore()
    store.put("sound", SOUND)
    segments = [compress_segment(plain) for plain in SegmentReader(store, "sound").read(range(layers))]
    return pack_segments(segments, SAID | about)


ACTIVATIONS = [["relu", 0.0]] * 3
BAD_ROWS = [np.array(rows) for rows in ([0.0, 1.0], [True, False], [[0, 1]], [1, 0], [0, 0], [-1, 0])]


def with_input_rows(rows: npt.NDArray[Any]) -> bytes:
    """The object of rank 1, reading other neurons of the input."""
    store = MemoryStore()
    store.put("sound", SOUND)
    first, *more = SegmentReader(store, "sound").read(range(3))
    kind = np.int32 if rows.dtype.kind == "i" else rows.dtype
    arrays = unpack_arrays(first) | {"input_rows": rows.astype(kind), "local.width": np.array([rows.size], np.int32)}
    segments = [compress_segment(plain) for plain in (pack_arrays(arrays), *more)]
    return pack_segments(segments, SAID | {"activations": ACTIVATIONS})


def test_the_objects_made_here_are_like_the_real_ones() -> None:
    store = MemoryStore()
    store.put(f"plans/{PLAN}/1", object_of({"activations": ACTIVATIONS}))
    assert len(read_rank(store, PLAN, 1, WORKERS, SYSTEM_CLOCK).layers) == 3


@pytest.mark.parametrize(
    "data",
    [
        object_of({}),
        object_of({"activations": None}),
        object_of({"activations": ACTIVATIONS[:2]}),
        object_of({"activations": ACTIVATIONS}, layers=2),
        object_of({"activations": [["relu"]] * 3}),
        object_of({"activations": [["unheard of", 0.0]] * 3}),
        object_of({"activations": [["relu", "x"]] * 3}),
        object_of({"activations": [["clipped_relu", -1.0]] * 3}),
        object_of({"activations": [["relu", 10**400]] * 3}),
        object_of({"activations": ACTIVATIONS, "plan": 1}),
        *(with_input_rows(rows) for rows in BAD_ROWS),
        pack_segments(
            [compress_segment(pack_arrays({"x": np.zeros(1)}))],
            SAID | {"activations": ACTIVATIONS[:1]},
        ),
    ],
)
def test_an_object_that_contradicts_itself_is_refused(data: bytes) -> None:
    store = MemoryStore()
    store.put(f"plans/{PLAN}/1", data)
    with pytest.raises(WireError):
        read_rank(store, PLAN, 1, WORKERS, SYSTEM_CLOCK)


def test_layers_that_do_not_follow_each_other_are_refused() -> None:
    store = MemoryStore()
    store.put("sound", SOUND)
    segments = [compress_segment(plain) for plain in SegmentReader(store, "sound").read([0, 1, 2])]
    about = SAID | {"activations": ACTIVATIONS}
    store.put(f"plans/{PLAN}/1", pack_segments([segments[1], segments[0], segments[2]], about))
    with pytest.raises(WireError):
        read_rank(store, PLAN, 1, WORKERS, SYSTEM_CLOCK)


def test_damaged_owners_are_refused() -> None:
    store = written()
    key = f"plans/{PLAN}/owners"
    data = store.get(key)
    store.put(key, data[:-3])
    with pytest.raises(WireError):
        read_owners(store, PLAN)
    store.put(key, pack_segments([compress_segment(pack_arrays({"x": np.zeros(1)}))], {}))
    with pytest.raises(WireError):
        read_owners(store, PLAN)


def test_plans_are_told_apart_by_all_that_makes_them() -> None:
    names = {
        plan_name(fingerprint, workers, method, seed)
        for fingerprint in ("a" * 64, "b" * 64)
        for workers in (1, 2)
        for method in ("block", "random", custom_method(PARTITION))
        for seed in (0, 1)
    }
    assert len(names) == 24
    assert plan_id("name", PARTITION) != plan_id("name", make_partition(NETWORK, WORKERS, "random", 5))


def test_parts_of_two_partitions_never_meet() -> None:
    """As two releases of a partitioner may make them, which divide one network in two ways under one name."""
    store = MemoryStore()
    partitions = [make_partition(NETWORK, WORKERS, "random", seed) for seed in (4, 5)]
    plans = [write_plan(store, plan_id("name", partition), NETWORK, partition).plan for partition in partitions]
    assert plans[0] != plans[1]
    found = find_plan(store, "name")
    assert found is not None
    assert found.plan in plans
    store.put(f"plans/{plans[0]}/1", store.get(f"plans/{plans[1]}/1"))
    store.put(f"plans/{plans[0]}/owners", store.get(f"plans/{plans[1]}/owners"))
    for read in (lambda: read_rank(store, plans[0], 1, WORKERS, SYSTEM_CLOCK), lambda: read_owners(store, plans[0])):
        with pytest.raises(PlanError, match=f"plans/{plans[0]}/.* is of plan '{plans[1]}'"):
            read()
    read_rank(store, plans[0], 0, WORKERS, SYSTEM_CLOCK)


def test_custom_partitions_are_told_apart_by_content() -> None:
    again = Partition(WORKERS, tuple(owners.copy() for owners in PARTITION.owners), "mine")
    other = make_partition(NETWORK, WORKERS, "random", 5)
    assert custom_method(again) == custom_method(PARTITION) != custom_method(other)


class _SlowStore(MemoryStore):
    """Gives the front of an object at once, and the rest when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        assert start == 0 or self.goes_on.wait(20)
        return super().get_range(key, start, length)


def test_the_first_layer_is_there_before_the_last_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _SlowStore()
    write_plan(store, PLAN, NETWORK, PARTITION)
    size = len(store.get(f"plans/{PLAN}/0"))
    monkeypatch.setattr(fsdcore.messages.segments, "FRONT_BYTES", size - 100)
    with closing(open_rank(store, PLAN, 0, WORKERS, lambda part: part, SYSTEM_CLOCK)) as plan:
        first = plan.layers[0]
        store.goes_on.set()
        assert same(first, read_rank(store, PLAN, 0, WORKERS, SYSTEM_CLOCK).layers[0])
        assert plan.layers[len(plan) - 1].activation == NETWORK.layers[-1].activation
