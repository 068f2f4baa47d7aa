"""Measuring a deployment: the parameters of the forecast, from short runs and a few requests to its services.

The speed of workers comes from the records of short runs. The speed of the services is measured from this machine, as
the quickest of several tries, and the model says so.
"""

from __future__ import annotations

import datetime
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from scipy.optimize import nnls

from fsdcore.arrays import Float64s
from fsdcore.client.session import Session
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Channel, Outgoing, Slot
from fsdcore.contracts.compute import new_run_id
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import DeadlineError, InputError
from fsdcore.estimate.activity import activity_of, structure_of
from fsdcore.estimate.profile import Profile, profile_of
from fsdcore.estimate.speeds import ChannelModel, ComputeModel, Model, StoreModel
from fsdcore.estimate.timing import Loads, Timeline, timeline
from fsdcore.messages.frames import DATA, build_frames, make_body
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Network
from fsdcore.partition import make_partition
from fsdcore.record.observer import SILENT, Observer
from fsdcore.record.record import Record

_NEURONS, _LAYERS, _SAMPLES = 1024, 6, 2000
_TRIES, _LARGE, _SECONDS = 5, 4 << 20, 30.0
# What the allocator keeps on top of what a fresh worker is measured at.
_KEPT_BYTES = 1.25e7
# Frames of a layer that one receive brings, beyond the first: from the receives and messages of the authors' runs.
_GATHERING = 0.085


def calibrate(backend: Backend, settings: RunSettings, observer: Observer = SILENT) -> Model:
    """Measure `backend` as `settings` would use it; raises what its runs raise."""
    date = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    store = _store(backend)
    compute = _compute(backend, settings, observer)
    channels = {}
    for number, kind in enumerate(backend.channels, start=1):
        channels[kind] = _channel(backend, kind, store)
        observer.progress("channels", number, len(backend.channels))
    here = "measured from where `fsd calibrate` ran"
    return Model(
        name=f"{settings.backend}-{date}",
        date=date,
        compute=compute,
        store=store,
        channels=channels,
        sources={
            "compute": f"records of runs of {_NEURONS} neurons, {_LAYERS} layers, {_SAMPLES} samples; "
            "message_seconds and runtime_bytes: measured from where `fsd calibrate` ran",
            "store": here,
            "channels": f"{here}; gathering: from the receives and messages of the authors' runs",
        },
    )


def _quickest(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return max(min(taken), 1e-7)


def _store(backend: Backend) -> StoreModel:
    store, key = backend.store, f"runs/calibration-{secrets.token_hex(8)}"
    large = secrets.token_bytes(_LARGE)
    try:
        small = _quickest(lambda: store.put(key, b"x")), _quickest(lambda: store.get(key))
        moved = _quickest(lambda: store.put(key, large)) + _quickest(lambda: store.get(key))
    finally:
        store.delete([key])
    rate = 2 * _LARGE / max(moved - sum(small), 1e-6)
    return StoreModel(put_seconds=small[0], get_seconds=small[1], bytes_per_second=rate)


def _compute(backend: Backend, settings: RunSettings, observer: Observer) -> ComputeModel:
    """From runs with one worker, which nothing disturbs, and with two, which talk."""
    network = radixnet(_NEURONS, _LAYERS)
    inputs = _inputs()
    alone = msgspec.structs.replace(settings, workers=1, batch_size=_SAMPLES)
    two = msgspec.structs.replace(settings, workers=2, batch_size=_SAMPLES, method="block")
    activity = activity_of(network, inputs, _SAMPLES)
    profiles = [profile_of(structure_of(network, make_partition(network, n, "block")), activity) for n in (1, 2)]
    ones = _runs(backend, alone, network, inputs, observer)
    single = min(ones, key=lambda record: record.seconds["multiply"])
    pair = min(_runs(backend, two, network, inputs, observer), key=lambda record: record.seconds["encode"])
    start = single.per_worker[0].started - (_ended(single) - single.wall_seconds)
    return ComputeModel(
        multiply_rate=float(profiles[0].local.sum()) / max(single.seconds["multiply"], 1e-6),
        codec_rate=2 * _values(profiles[1]) / max(pair.seconds["encode"] + pair.seconds["decode"], 1e-6),
        message_seconds=_message_seconds(),
        start_seconds=max(start, 0.0),
        billed_start_seconds=max(worker.start_seconds for record in ones for worker in record.per_worker),
        invoke_seconds=max(pair.per_worker[1].started - pair.per_worker[0].started, 0.0),
        runtime_bytes=runtime_bytes(backend),
    )


def _inputs() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return (np.random.default_rng(0).random((_SAMPLES, _NEURONS)) < 0.3).astype(np.float32)


def _runs(
    backend: Backend, settings: RunSettings, network: Network, inputs: object, observer: Observer
) -> list[Record]:
    model = Session(backend, settings, observer).load(network)
    return [model.run(inputs).record for _ in range(_TRIES)]


def _ended(record: Record) -> float:
    return max(worker.ended for worker in record.per_worker)


def _values(profile: Profile) -> float:
    return float((profile.messages.rows * profile.messages.live).sum())


def _message_seconds() -> float:
    """Of an empty-handed message: a body made, cut into a frame, and taken apart."""
    run = new_run_id(SYSTEM_CLOCK)
    return 2 * _quickest(lambda: list(build_frames(run, Slot(DATA, 0, 2), 0, 1, make_body(b"x" * 64), 1 << 18)))


def runtime_bytes(backend: Backend) -> float:
    """The peak memory of a fresh interpreter that has imported what a worker imports, and what a run adds to it.

    On one machine, interpreter and libraries varied by 5 MB, depending on how their files were mapped into memory.
    """
    imports = f"import {type(backend).__module__}; from fsdcore.worker.worker import peak_memory_bytes"
    program = f"{imports}; print(peak_memory_bytes())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, encoding="utf-8")
    return int(done.stdout) + _KEPT_BYTES


def _channel(backend: Backend, kind: str, store: StoreModel) -> ChannelModel:
    """Two endpoints here: small frames there one by one, then a large one."""
    limits = backend.channel_capabilities(kind)
    run = new_run_id(SYSTEM_CLOCK)
    ends = [backend.open_channel(kind, Address(run, rank, 2)) for rank in range(2)]
    try:
        small = [_round(run, ends, number, b"") for number in range(1, _TRIES + 1)]
        size = min(limits.max_frame_bytes, limits.max_publish_bytes) - 1024
        large = [_round(run, ends, number, secrets.token_bytes(min(size, _LARGE))) for number in range(6, 9)]
    finally:
        for end in ends:
            end.close()
        backend.store.delete(backend.store.list(f"runs/{run}/"))
    send, receive = (max(min(each), 1e-7) for each in zip(*small, strict=True))
    longer = max(min(sum(each) for each in large) - send - receive, 1e-7)
    per_second = min(size, _LARGE) / longer
    if limits.redelivers:
        return ChannelModel(
            send_seconds=send,
            delivery_seconds=receive / 2,
            receive_seconds=receive / 2,
            bytes_per_second=per_second,
            gathering=_GATHERING,
        )
    # A receive polls the store, and ends with one read.
    return ChannelModel(
        send_seconds=send,
        delivery_seconds=max(0.0, receive - store.get_seconds),
        receive_seconds=store.get_seconds,
        bytes_per_second=per_second,
        poll_seconds=max(store.get_seconds, 1e-3) * 2,
    )


def _round(run: str, ends: list[Channel], number: int, plain: bytes) -> tuple[float, float]:
    """Seconds to send one message from end to end, and then to have it."""
    slot = Slot(DATA, 0, number)
    sender, receiver = ends
    (frame,) = build_frames(run, slot, 0, 1, make_body(plain), 1 << 31)
    receiver.expect(slot, [0])
    start = time.perf_counter()
    sender.send([Outgoing(1, frame)])
    sent = time.perf_counter()
    received = receiver.receive(Deadline.after(_SECONDS, SYSTEM_CLOCK))
    if not received:
        raise DeadlineError(f"a frame that was sent did not come within {_SECONDS:g} s")
    receiver.acknowledge(received)
    return sent - start, time.perf_counter() - sent


# A factor that the runs do not show is not zero but too small to see.
_UNSEEN = 1e-18


@dataclass(frozen=True)
class EvenRun:
    """A run whose workers do about the same: all figures for one worker, summed over `layers`.

    `multiply_adds`, `bytes_sent`, `messages` (sent), and `seconds`, which is not needed to forecast.
    """

    channel: str
    workers: int
    layers: int
    multiply_adds: float
    bytes_sent: float
    messages: float
    seconds: float = 0.0

    def terms(self, channels: Sequence[str]) -> list[float]:
        """What the factors are multiplied with: the kernel's, then three for each channel."""
        own = [self.bytes_sent, self.messages, float(self.layers)]
        return [
            self.multiply_adds,
            *(term for kind in channels for term in (own if kind == self.channel else [0.0] * 3)),
        ]


def fit_model(runs: Sequence[EvenRun], name: str, date: str, source: str) -> Model:
    """The model that fits `runs` best; `InputError` if there are fewer runs of a channel than it has factors."""
    channels = sorted({run.channel for run in runs})
    for kind in channels:
        if sum(run.channel == kind for run in runs) < 3:
            raise InputError(f"fewer than 3 runs over {kind!r}: too few to fit its bytes, messages and waits")
    terms = np.array([run.terms(channels) for run in runs])
    seconds = np.array([run.seconds for run in runs])
    scale = terms.max(axis=0)
    scale[scale == 0] = 1.0
    factors, _ = nnls(terms / scale / seconds[:, None], np.ones(seconds.size))
    found = np.maximum(factors / scale, _UNSEEN)
    wires = {kind: _fitted_channel(found[1 + 3 * n : 4 + 3 * n]) for n, kind in enumerate(channels)}
    return Model(
        name=name,
        date=date,
        compute=ComputeModel(
            multiply_rate=float(1 / found[0]),
            codec_rate=1 / _UNSEEN,
            message_seconds=0.0,
            start_seconds=0.0,
            billed_start_seconds=0.0,
            invoke_seconds=0.0,
            runtime_bytes=0.0,
        ),
        store=StoreModel(put_seconds=0.0, get_seconds=0.0, bytes_per_second=1 / _UNSEEN),
        channels=wires,
        sources={"compute": source, "channels": source, "store": "part of what channels were fitted to"},
    )


def _fitted_channel(factors: Float64s) -> ChannelModel:
    per_byte, per_message, per_layer = factors.tolist()
    return ChannelModel(
        send_seconds=per_message, delivery_seconds=per_layer, receive_seconds=0.0, bytes_per_second=1 / per_byte
    )


def even_timeline(run: EvenRun, model: Model) -> Timeline:
    """The forecast of an even run; bytes and messages are charged where they are sent, for both ends."""
    shape = (run.layers, run.workers)
    none = np.zeros(shape)

    def spread(total: float) -> Float64s:
        return np.full(shape, total / run.layers)

    loads = Loads(
        local=none,
        remote=spread(run.multiply_adds),
        encoded=none,
        decoded=none,
        messages=spread(run.messages),
        sends=spread(run.messages),
        receives=none,
        bytes_out=spread(run.bytes_sent),
        bytes_in=none,
        edges=None,
        output_bytes=none[0],
    )
    return timeline([loads], model, model.channel(run.channel), 1, 1.0, none[0])
