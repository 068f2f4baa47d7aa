"""Decoders of what travels: frames, messages, invocations, what services wrap them in, the channel's objects."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np

from fsd_aws.deployment import Deployment as AwsDeployment
from fsd_aws.queue import read_frame
from fsd_aws.settings import AwsSettings
from fsd_gcp.deployment import Deployment as GcpDeployment
from fsd_gcp.settings import GcpSettings
from fsd_local.stores import DirectoryStore, MemoryStore
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Address, Outgoing, Slot
from fsdcore.contracts.compute import Invocation
from fsdcore.contracts.settings import RunSettings
from fsdcore.contracts.store import Store
from fsdcore.messages.frames import (
    ABORT,
    COLLECTIVE,
    DATA,
    HEADER_BYTES,
    ZSTD,
    Body,
    build_frames,
    make_body,
    open_body,
)
from fsdcore.messages.mailbox import Mailbox
from fsdcore.messages.object_channel import ObjectChannel
from fsdcore.messages.rows import open_rows
from fsdcore.messages.sample_lists import encode_columns, read_columns
from fsdcore.messages.segments import pack_arrays, unpack_arrays
from fsdcore.messages.zstd import compress
from fsdcore.record.record import WorkerRecord
from tests.fuzz.draws import Draws
from tests.fuzz.world import RUN, WORKERS, World

NOTICE = {"rank": 1, "layer": 2, "batch": 0, "error": "StoreError", "message": "it broke"}
INVOCATION = Invocation(
    run=RUN,
    rank=0,
    lane=0,
    plan="name/digest",
    batches=(33, 2),
    settings=RunSettings(workers=WORKERS, deadline_seconds=1.0),
    run_seconds=1.0,
)
AWS = AwsDeployment.of(AwsSettings(), account="123456789012", partition="aws", workers=8, region="eu-west-1")
GCP = GcpDeployment.of(GcpSettings(region="europe-west1"), project="a-project", workers=8)


def _mailbox() -> Mailbox:
    return Mailbox(SYSTEM_CLOCK, RUN, 0, WORKERS, batches=3, layers=5)


def _frame(world: World, draws: Draws) -> bytes:
    """A sound frame of any kind."""
    kind = draws.choice([DATA, ABORT, COLLECTIVE])
    slot = Slot(kind, draws.randrange(3), draws.randrange(5) if kind == DATA else 0)
    body = make_body(draws.randbytes(draws.randrange(500)))
    if kind == DATA:
        body = draws.choice(world.messages).body
    elif kind == ABORT:
        body = make_body(json.dumps(NOTICE).encode())
    cut = build_frames(RUN, slot, 1, 0, body, draws.choice([60, 100, 1 << 20]))
    return draws.choice(list(cut))


def _refitted(draws: Draws, frame: bytes) -> bytes:
    """A frame with its length and its checksum made right again, and mostly its mark as well."""
    if len(frame) < HEADER_BYTES:
        return frame
    head = bytearray(frame[:HEADER_BYTES])
    head[34:] = struct.pack("<II", len(frame) - HEADER_BYTES, 0)
    if draws.chance(0.8):
        head[:3], head[5] = b"FS\x01", 0
    head[38:] = struct.pack("<I", zlib.crc32(frame[HEADER_BYTES:], zlib.crc32(head)))
    return bytes(head) + frame[HEADER_BYTES:]


def damaged_frame(world: World, draws: Draws, sound: bytes) -> bytes:
    """A frame with something wrong in it, mostly behind a right checksum."""
    frame = draws.damaged(sound)
    return _refitted(draws, frame) if draws.chance(0.7) else frame


def frames(world: World, draws: Draws) -> None:
    box = _mailbox()
    box.add([damaged_frame(world, draws, _frame(world, draws)) for _ in range(2)])
    box.check()


def aborts(world: World, draws: Draws) -> None:
    (frame,) = build_frames(RUN, Slot(ABORT, 0, 0), 1, 0, make_body(draws.json(NOTICE)), 1 << 30)
    box = _mailbox()
    box.add([frame])
    box.check()


def bodies(world: World, draws: Draws) -> None:
    plain = draws.choice([b"abc" * 300, draws.randbytes(200), bytes(5_000)])
    packed = compress(plain, checksum=draws.chance(0.5))
    open_body(Body(ZSTD, draws.damaged(packed)), draws.choice([10, len(plain), 10_000]))


def rows(world: World, draws: Draws) -> None:
    message = draws.choice(world.messages)
    rows = max(1, message.rows + draws.choice([0, 0, 0, -1, 1]))
    least = 1 if message.before is None else int(message.before[-1]) + 1
    samples = max(least, message.samples + draws.choice([0, 0, 0, -1, 1]))
    encoding = draws.choice([3, 3, 3, 3, 3, 0, 1, 2])
    opened = open_rows(Body(encoding, draws.damaged(message.body.data)), rows, samples, message.before)
    found = opened.table().rows()
    assert found.values.shape == (rows, opened.columns.size)
    _check_columns(opened.columns, samples)


def lists(world: World, draws: Draws) -> None:
    samples = draws.randint(1, 500)
    columns = np.flatnonzero([draws.chance(0.3) for _ in range(samples)]).astype(np.int32)
    form, data = encode_columns(columns, samples)
    form, count = draws.choice([form, form, 0, 1, 2, 3]), max(0, columns.size + draws.choice([0, 0, 0, 1, -1]))
    found = read_columns(form, memoryview(draws.damaged(bytes(data))), count, samples)
    assert found.size == count
    _check_columns(found, samples)


def _check_columns(columns: Any, samples: int) -> None:
    assert columns.size == 0 or 0 <= columns[0] <= columns[-1] < samples
    assert (np.diff(columns) > 0).all()


def channel_objects(world: World, draws: Draws) -> None:
    slot, address = Slot(DATA, 0, 2), Address(RUN, 0, WORKERS)
    sound = MemoryStore()
    sent = [
        Outgoing(target, f) for target in (0, 2) for f in build_frames(RUN, slot, 1, target, make_body(b"x" * 99), 90)
    ]
    ObjectChannel(sound, Address(RUN, 1, WORKERS)).send(sent)
    (key,) = sound.list("")
    store: Store = MemoryStore() if draws.chance(0.9) else DirectoryStore(world.folder / "objects")
    store.put(key, _damaged_object(draws, sound.get(key)))
    channel = ObjectChannel(store, address)
    channel.expect(slot, [1])
    _mailbox().add([item.data for item in channel.receive(Deadline.after(0.0, SYSTEM_CLOCK))])


def _damaged_object(draws: Draws, data: bytes) -> bytes:
    """With something wrong anywhere, or in the index behind a right checksum."""
    if draws.chance(0.5):
        return draws.damaged(data)
    index = draws.damaged(data[12:52])
    return data[:8] + struct.pack("<I", zlib.crc32(index[:40])) + index + data[52:]


def arrays(world: World, draws: Draws) -> None:
    packed = pack_arrays(draws.arrays({"array": np.arange(12.0).reshape(3, 4), "other": np.zeros(3, np.int32)}))
    unpack_arrays(draws.damaged(packed))


def worker_records(world: World, draws: Draws) -> None:
    WorkerRecord.from_json(draws.json(world.record["per_worker"][0]))


def invocations(world: World, draws: Draws) -> None:
    text = draws.json(json.loads(INVOCATION.to_json()))
    if draws.chance(0.5):
        Invocation.from_json(text)
    else:
        Invocation.from_event(_read(text))


def _read(text: bytes) -> Any:
    """As a service reads an event before it hands it on."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.decode("latin1")


def deployments(world: World, draws: Draws) -> None:
    AwsDeployment.from_json(draws.json(json.loads(AWS.to_json())))
    GcpDeployment.from_json(draws.json(json.loads(GCP.to_json())).decode("latin1"))


def envelopes(world: World, draws: Draws) -> None:
    body = draws.damaged(b"RlMBAQAAAAAAAAA=").decode("latin1")
    attributes = draws.choice([{}, {"frame": {}}, {"frame": {"BinaryValue": draws.randbytes(50)}}, {"other": {}}])
    message = {"Body": body, "MessageAttributes": attributes}
    if draws.chance(0.2):
        del message[draws.choice(list(message))]
    _mailbox().add([read_frame(message)])


DECODERS = {
    "frames": frames,
    "aborts": aborts,
    "bodies": bodies,
    "rows": rows,
    "lists": lists,
    "channel objects": channel_objects,
    "arrays": arrays,
    "worker records": worker_records,
    "invocations": invocations,
    "deployments": deployments,
    "envelopes": envelopes,
}
