"""What is sound, of which the inputs are made: a network, its plan, a run of it, and files of each kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsd_local import LocalBackend
from fsd_local.stores import MemoryStore
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.contracts.store import Store
from fsdcore.messages.frames import Body
from fsdcore.messages.rows import RowEncoder, Rows
from fsdcore.messages.sample_lists import Columns
from fsdcore.messages.segments import Arrays, SegmentReader, unpack_arrays
from fsdcore.network.activations import TANH, clipped_relu
from fsdcore.partition import make_partition
from fsdcore.plan.files import keep, write_plan
from fsdcore.testing import random_inputs, random_network
from fsdcore.worker.handoff import write_inputs

RUN, PLAN, WORKERS, SAMPLES = "1a2152009aa6e3f1", "a/plan", 3, 33


@dataclass(frozen=True)
class Message:
    """A message of rows, and what its receiver knows."""

    body: Body
    rows: int
    samples: int
    before: Columns | None


class World:
    """Sound samples; `folder` is where files may be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = random_network((24, 30, 28, 20), (clipped_relu(2.0), TANH))
        self.inputs = random_inputs(SAMPLES, 24)
        self.partition = make_partition(self.network, WORKERS, "random", 1)
        self.store = MemoryStore()
        self.manifest = write_plan(self.store, PLAN, self.network, self.partition)
        write_inputs(self.store, RUN, 0, self.inputs)
        keep(self.store, PLAN, self.partition)

    def file(self, name: str, data: bytes) -> Path:
        """A file with that content."""
        path = self.folder / name
        path.write_bytes(data)
        return path

    def segments(self, key: str) -> tuple[list[Arrays], dict[str, Any]]:
        """The arrays of each segment of a sound object, and what it says of itself."""
        reader = SegmentReader(self.store, key)
        return [unpack_arrays(part) for part in reader.read(range(len(reader)))], reader.about

    def holding(self, key: str, data: bytes) -> Store:
        """A store with one object more than none."""
        store = MemoryStore()
        store.put(key, data)
        return store

    @cached_property
    def messages(self) -> list[Message]:
        """Rows of all kinds that the codec tells apart."""
        rng = np.random.default_rng(0)
        return [made for number in range(60) if (made := _message(rng, number % 5)) is not None]

    @cached_property
    def record(self) -> Any:
        """The record of a traced run, as JSON holds it."""
        settings = RunSettings(workers=2, method="block", trace=True)
        with Session(LocalBackend(), settings) as session:
            return json.loads(session.load(self.network).run(self.inputs).record.to_json())


def _message(rng: np.random.Generator, kind: int) -> Message | None:
    rows, samples = int(rng.integers(1, 40)), int(rng.integers(1, 300))
    values = _values(rng, kind, (rows, samples))
    live = values.any(axis=0)
    if not live.any():
        return None
    columns = np.flatnonzero(live).astype(np.int32)
    sent = np.flatnonzero(live | (rng.random(samples) < 0.3)).astype(np.int32)
    before = sent if rng.random() < 0.5 else None
    body = RowEncoder(Rows(columns, values[:, columns]), samples).encode(None, before).body
    return Message(body, rows, samples, before)


def _values(rng: np.random.Generator, kind: int, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    some = rng.random(shape)
    made = [
        np.where(some < 0.3, 2.0, 0.0),
        rng.normal(size=shape),
        np.where(some < 0.05, rng.random(shape), 0.0),
        np.broadcast_to(some[:1] < 0.5, shape),
        np.where(some < 0.1, rng.integers(1, 9, shape), 0),
    ]
    return made[kind].astype(np.float32)
