"""A rehearsal: the run itself, in threads of this process, over a channel that only notes the sizes of messages.

Every message is computed and encoded by the worker's own code, so its size is that of the run. Nothing is sent to a
service: the plan is read from the given store, everything else stays in memory.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from fsdcore.client.session import Session
from fsdcore.clock import Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received
from fsdcore.contracts.compute import Compute, Exit, Invocation
from fsdcore.contracts.limits import ChannelCapabilities, ComputeCapabilities, StoreCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.contracts.store import Store
from fsdcore.errors import KeyMissingError, PreconditionError
from fsdcore.estimate.profile import Profile
from fsdcore.messages.frames import DATA, HEADER_BYTES, parse_frame
from fsdcore.network.network import Network
from fsdcore.partition.base import Partition
from fsdcore.record.observer import SILENT, Observer
from fsdcore.record.record import WorkerRecord
from fsdcore.worker.worker import run_worker

_LIMITS = ChannelCapabilities(
    max_frame_bytes=1 << 31,
    max_publish_frames=1 << 20,
    max_publish_bytes=1 << 40,
    max_receive_frames=1 << 20,
    redelivers=False,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Rehearsal:
    """What was noted: bytes of each message's body by batch and (layer, source, target), and what workers counted."""

    bodies: dict[int, dict[tuple[int, int, int], int]]
    workers: tuple[WorkerRecord, ...] = ()

    def counted(self, counter: str) -> npt.NDArray[np.int64]:
        """A counter of the workers, by layer from 1, and rank."""
        return np.array([worker.counters[counter][1:] for worker in self.workers], np.int64).T

    def exact(self, profile: Profile, batch: int) -> Profile:
        """`profile` with the bodies of `batch` as they were."""
        noted, m = self.bodies.get(batch, {}), profile.messages
        keys = zip(m.layer.tolist(), m.source.tolist(), m.target.tolist(), strict=True)
        body = np.array([noted[key] for key in keys], np.float64)
        return dataclasses.replace(profile, messages=dataclasses.replace(m, body=body))


class _Overlay(Store):
    """Objects in memory, over a store that is only read."""

    capabilities = StoreCapabilities()

    def __init__(self, below: Store) -> None:
        self._below, self._own = below, dict[str, bytes]()
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        with self._lock:
            if if_absent and key in self._own:
                raise PreconditionError(f"object {key} exists")
            self._own[key] = bytes(data)

    def _here(self, key: str) -> bytes | None:
        with self._lock:
            found = self._own.get(key)
        if found is None and key.startswith("runs/"):
            raise KeyMissingError(f"there is no object {key}")
        return found

    def get(self, key: str) -> bytes:
        found = self._here(key)
        return self._below.get(key) if found is None else found

    def get_range(self, key: str, start: int, length: int) -> bytes:
        found = self._here(key)
        return self._below.get_range(key, start, length) if found is None else found[start : start + length]

    def list(self, prefix: str) -> list[str]:
        with self._lock:
            return sorted(key for key in self._own if key.startswith(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._own.pop(key, None)

    def close(self) -> None:
        """The store below belongs to another."""


class _Wire:
    """Frames on their way to each rank, and the sizes of all that were sent."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: defaultdict[int, deque[bytes]] = defaultdict(deque)
        self.noted = Rehearsal(defaultdict(dict))

    def note(self, data: bytes) -> None:
        frame = parse_frame(data)
        size, slot = len(data) - HEADER_BYTES, frame.slot
        if slot.kind == DATA:
            self.noted.bodies[slot.batch][slot.layer, frame.source, frame.target] = size


class _NotingChannel(Channel):
    capabilities = _LIMITS

    def __init__(self, wire: _Wire, address: Address) -> None:
        self._wire, self._rank = wire, address.rank

    def send(self, frames: Sequence[Outgoing]) -> None:
        with self._wire.changed:
            for frame in frames:
                self._wire.note(frame.data)
                self._wire.waiting[frame.target].append(frame.data)
            self._wire.changed.notify_all()

    def receive(self, deadline: Deadline) -> list[Received]:
        with self._wire.changed:
            self._wire.changed.wait_for(lambda: self._wire.waiting[self._rank], deadline.remaining())
            waiting = self._wire.waiting[self._rank]
            received = [Received(data, None) for data in waiting]
            waiting.clear()
            return received

    def acknowledge(self, received: Sequence[Received]) -> None:
        """Nothing comes twice."""

    def close(self) -> None:
        """The wire belongs to the rehearsal."""


class _Threads(Compute):
    capabilities = ComputeCapabilities(reports_exit=True)

    def __init__(self, backend: Backend) -> None:
        self._backend, self._exits = backend, list[Exit]()

    def invoke(self, invocation: Invocation) -> None:
        threading.Thread(target=self._run, args=(invocation,), daemon=True).start()

    def _run(self, invocation: Invocation) -> None:
        problem: str | None = None
        try:
            run_worker(self._backend, invocation)
        except BaseException as error:  # noqa: BLE001 - the end of a thread: the run raises it
            problem = f"{type(error).__name__}: {error}"
        self._exits.append(Exit(invocation.rank, problem))

    def exits(self, run: str) -> Sequence[Exit]:
        return tuple(self._exits)


class _Stage(Backend):
    name = "rehearsal"
    summary = "threads of this process; messages are only measured"
    channels = ("queue",)

    def __init__(self, below: Store, wire: _Wire) -> None:
        super().__init__()
        self._store, self._wire, self._compute = _Overlay(below), wire, _Threads(self)

    @property
    def store(self) -> Store:
        return self._store

    @property
    def compute(self) -> Compute:
        return self._compute

    def open_channel(self, kind: str, address: Address) -> Channel:
        return _NotingChannel(self._wire, address)

    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        return _LIMITS


def rehearse(
    store: Store,
    network: Network,
    partition: Partition | None,
    inputs: object,
    settings: RunSettings,
    observer: Observer = SILENT,
) -> Rehearsal:
    """Run `network` on all of `inputs` as `settings` say, and note what would be sent.

    A plan that is not in `store` is made, in memory. Raises what the run raises.
    """
    wire = _Wire()
    patient = msgspec.structs.replace(settings, channel="queue", deadline_seconds=7200.0, run_seconds=7200.0)
    with Session(_Stage(store, wire), patient, observer) as session:
        record = session.load(network, partition).run(inputs).record
    return dataclasses.replace(wire.noted, workers=tuple(record.per_worker))
