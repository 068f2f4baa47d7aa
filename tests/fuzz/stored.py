"""Decoders of objects in a store: plans, partitions, inputs, outputs, the ends of runs, leases."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import msgspec
import numpy as np
import scipy.sparse as sp

from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Slot
from fsdcore.kernels import make_kernel
from fsdcore.kernels.base import Kernel, PreparedLayer
from fsdcore.messages.frames import DATA, build_frames
from fsdcore.messages.rows import RowEncoder, Rows, Table
from fsdcore.messages.segments import Arrays, compress_segment, pack_arrays, pack_segments
from fsdcore.network.activations import RELU
from fsdcore.plan.files import RankPlan, find_kept, find_plan, open_rank, read_partition
from fsdcore.plan.plan import Block, LayerPart, visiting_order
from fsdcore.worker.handoff import read_done, read_failure, read_inputs, read_outputs
from fsdcore.worker.leases import Watch, remove_dead, take_lane
from tests.fuzz.draws import Draws
from tests.fuzz.travelling import damaged_frame
from tests.fuzz.world import PLAN, RUN, SAMPLES, WORKERS, World

FAILURE = {"rank": 1, "error": "StoreError", "message": "m", "at": 1.0, "layer": 2, "batch": 0, "peer": 1, "trace": ""}
LEASE = {"run": RUN, "state": "held", "since": 1.0, "until": 2.0, "expires": 3.0}
_INDEX_AT = 12


def damaged_object(draws: Draws, sound: tuple[list[Arrays], dict[str, Any]]) -> bytes:
    """An object of segments with something wrong at one of its levels: arrays, their bytes, the index, the whole."""
    parts, about = sound
    at, level = draws.randrange(len(parts)), draws.random()
    packed = [pack_arrays(part) for part in parts]
    if level < 0.55:
        packed[at] = pack_arrays(draws.arrays(parts[at]))
    elif level < 0.7:
        packed[at] = draws.damaged(packed[at])
    data = pack_segments([compress_segment(plain) for plain in packed], about)
    if level < 0.7:
        return data
    return _with_index(draws, data) if level < 0.9 else draws.damaged(data)


def _with_index(draws: Draws, data: bytes) -> bytes:
    """With another index behind a right checksum."""
    end = _INDEX_AT + int.from_bytes(data[4:8], "little")
    index = draws.json(json.loads(data[_INDEX_AT:end]))
    return struct.pack("<4sII", data[:4], len(index), zlib.crc32(index)) + index + data[end:]


def plans(world: World, draws: Draws) -> None:
    """A part of a plan that is taken is run, with each kernel in turn: what got through must be sound."""
    rank = draws.randrange(WORKERS)
    key = f"plans/{PLAN}/{rank}"
    store = world.holding(key, damaged_object(draws, world.segments(key)))
    kernel = make_kernel(draws.choice(["compiled", "scipy"]), 1)
    opened = open_rank(store, PLAN, rank, WORKERS, kernel.prepare, SYSTEM_CLOCK)
    try:
        layers = [opened.layers[number] for number in range(len(opened))]
        _run(world, kernel, opened, layers)
    finally:
        opened.close()


def _run(world: World, kernel: Kernel, opened: RankPlan[PreparedLayer], layers: list[PreparedLayer]) -> None:
    (strip,) = read_inputs(world.store, RUN, 0, opened.input_rows, SAMPLES)
    z = kernel.first(layers[0], strip, SAMPLES)
    columns = np.arange(SAMPLES, dtype=np.int32)
    for layer in layers[1:]:
        sent = Rows(z.columns, z.rows())
        for send in layer.sends:
            RowEncoder(sent, SAMPLES).encode(send.rows)
        z = kernel.local(layer, z, SAMPLES)
        for number, width in enumerate(layer.widths):
            z = kernel.add(layer, number, Table(columns, np.ones((width, SAMPLES), np.float32), None), z)
    RowEncoder(Rows(z.columns, z.rows()), SAMPLES).encode()


def manifests(world: World, draws: Draws) -> None:
    data = draws.json(msgspec.to_builtins(world.manifest))
    find_plan(world.holding(f"plans/{PLAN}/manifest", data), PLAN.partition("/")[0])


def owners(world: World, draws: Draws) -> None:
    key = f"plans/{PLAN}/owners"
    store = world.holding(key, damaged_object(draws, world.segments(key)))
    read_partition(store, world.manifest).check(world.network)


def kept_partitions(world: World, draws: Draws) -> None:
    key = f"plans/{PLAN}/partition"
    store = world.holding(key, damaged_object(draws, world.segments(key)))
    find_kept(store, PLAN, world.network, WORKERS, "random", 1)


def inputs(world: World, draws: Draws) -> None:
    key = f"runs/{RUN}/inputs/0"
    store = world.holding(key, damaged_object(draws, world.segments(key)))
    rows = np.unique([draws.randrange(24) for _ in range(10)]).astype(np.int32)
    kernel = make_kernel(draws.choice(["compiled", "scipy"]), 1)
    layer, z = _reading(kernel, rows.size), None
    for strip in read_inputs(store, RUN, 0, rows, SAMPLES):
        z = kernel.first(layer, strip, SAMPLES, z)


def _reading(kernel: Kernel, width: int) -> PreparedLayer:
    """A layer that reads so many rows."""
    weights = sp.csr_array(np.ones((5, width), np.float32))
    indptr, indices = weights.indptr.astype(np.int32), weights.indices.astype(np.int32)
    block = Block(indptr, indices, weights.data, width, visiting_order(indptr, indices))
    return kernel.prepare(LayerPart(block, (), (), np.zeros(5, np.float32), RELU, True))


def outputs(world: World, draws: Draws) -> None:
    message = draws.choice([message for message in world.messages if message.before is None])
    (frame,) = build_frames(RUN, Slot(DATA, 0, 0), 1, 1, message.body, 1 << 40)
    store = world.holding(f"runs/{RUN}/outputs/0/1", damaged_frame(world, draws, frame))
    found = read_outputs(store, RUN, 0, 1, message.rows, message.samples)
    assert found.values.shape == (message.rows, found.columns.size)


def ends(world: World, draws: Draws) -> None:
    if draws.chance(0.5):
        read_failure(world.holding("key", draws.json(FAILURE)), "key")
    else:
        read_done(world.holding(f"runs/{RUN}/end/done", draws.json(world.record["per_worker"])), RUN)


def leases(world: World, draws: Draws) -> None:
    key = draws.choice([f"leases/lanes/queue/0/{1:012d}", f"leases/runs/{RUN}", "leases/lanes/queue/0/x", "leases/x"])
    store = world.holding(key, draws.json(LEASE))
    Watch(store, key, SYSTEM_CLOCK).is_over()
    remove_dead(store, "", SYSTEM_CLOCK)
    take_lane(store, "queue", 1, 1.0, Deadline.after(0.0, SYSTEM_CLOCK), lambda line: None)


DECODERS = {
    "plans": plans,
    "manifests": manifests,
    "owners": owners,
    "kept partitions": kept_partitions,
    "inputs": inputs,
    "outputs": outputs,
    "ends": ends,
    "leases": leases,
}
