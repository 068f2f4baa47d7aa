"""What a user calls: connect, load, run.

with fsd.connect("local", channel="queue", workers=8) as session:
    model = session.load(network)
    result = model.run(x)
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from msgspec.structs import asdict, replace

from fsdcore.client.batching import batches_of, default_batch_size
from fsdcore.client.config import AUTO
from fsdcore.client.run import Done, Request, execute
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.compute import new_run_id
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import ConfigError, InputError, PlanError
from fsdcore.network.activations import SOFTMAX
from fsdcore.network.matrices import MOST_NEURONS
from fsdcore.network.network import Network, as_inputs
from fsdcore.partition import QualityReport, make_partition, quality
from fsdcore.partition.base import Partition
from fsdcore.plan.files import (
    Manifest,
    custom_method,
    find_kept,
    find_plan,
    plan_id,
    plan_name,
    read_owners,
    read_partition,
    write_plan,
)
from fsdcore.plan.plan import check_workers
from fsdcore.record.observer import SILENT, Observer, following, notice
from fsdcore.record.record import Record, Setting, WorkerRecord, by_layer, total_counters, total_seconds
from fsdcore.record.recorder import Recorder

# What the rows of a worker for one batch may take, packed or not.
_MOST_BATCH_BYTES = (1 << 32) - (1 << 20)
# Settings of a backend that say what its functions were; others may name what is not for every reader of a record.
_OF_FUNCTIONS = ("region", "memory_mb", "cpu", "architecture", "timeout_seconds", "publishes_in_flight")


# Of the backend's channels, that of a run of the network with this partition, on these inputs `(samples, inputs)`.
ChannelChoice: TypeAlias = Callable[[Backend, Network, Partition, sp.csr_array, RunSettings], str]


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gave.

    `outputs`: float32 `(samples, outputs)`, a `csr_array` if the inputs were sparse, a numpy array if not.
    """

    outputs: Any
    record: Record

    def categories(self) -> npt.NDArray[np.int64]:
        """The samples, from 0, that have any nonzero output, ascending (the Graph Challenge's answer)."""
        outputs = sp.csr_array(self.outputs)
        return np.unique(outputs.nonzero()[0]).astype(np.int64)


class Model:
    """A network whose plan is in the session's store; runs of it need not make the plan again."""

    def __init__(self, session: Session, network: Network, manifest: Manifest) -> None:
        self._session, self._manifest = session, manifest
        self.network, self.plan = network, manifest.plan

    @cached_property
    def partition(self) -> Partition:
        """The partition that the plan was made of."""
        return read_partition(self._session.backend.store, self._manifest)

    @cached_property
    def quality(self) -> QualityReport:
        """How good the partition is: rows sent, pairs that talk, balance, memory."""
        return quality(self.network, self.partition)

    @cached_property
    def _owners(self) -> npt.NDArray[np.int32]:
        return read_owners(self._session.backend.store, self.plan, [len(self.network)])[0]

    def run(self, x: Any, batch_size: int | None = None) -> Result:
        """The network's outputs for `x`, `(samples, inputs)`, sparse or dense.

        The samples are run in batches of `batch_size`, several under way at once (`in_flight`, as far as a worker's
        activations stay below 64 MiB); by default in one batch if that does, else in batches that allow for as many.
        A batch whose activations are large is cut into several (`fsdcore.client.batching`).
        `InputError` if `x` does not fit; `RunError` and its kin if the run fails, with the first cause.
        """
        self._session.check_process()
        inputs = as_inputs(x, self.network.inputs)
        with self._session.following("run", self.network, samples=int(inputs.shape[0])) as ended:
            result = self._run(inputs, batch_size, sp.issparse(x))
            ended(result.record)
        return result

    def _run(self, inputs: sp.csr_array, batch_size: int | None, sparse: bool) -> Result:
        size = self._batch_size(batch_size, inputs.shape[0])
        if not inputs.shape[0] or not all(self.network.widths):
            return self._without_workers(inputs, size, sparse)
        settings = self._settled(inputs)
        rows, workers = self._manifest.largest_rows, settings.workers
        sizes, in_flight = batches_of(rows, inputs.shape[0], size, settings.in_flight, workers=workers)
        ends = itertools.accumulate(sizes)
        batches = [inputs[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        settings = replace(settings, batch_size=size, in_flight=in_flight)
        done = execute(self._session.backend, Request(self.plan, self._owners, batches, settings))
        return self._result(done, settings, inputs, sparse, len(batches))

    def _without_workers(self, inputs: sp.csr_array, size: int, sparse: bool) -> Result:
        """The result where there is nothing to compute with: no samples, or a layer without neurons."""
        settings = self._session.settings
        if settings.channel == AUTO:
            settings = replace(settings, channel=self._session.backend.channels[0])
        settings = replace(settings, batch_size=size, in_flight=1)
        clock, layers = self._session.backend.clock, len(self.network)
        recorders = [Recorder(clock, rank, layers, settings.workers) for rank in range(settings.workers)]
        outputs = self.network.infer(inputs)
        done = Done(new_run_id(clock), outputs, [recorder.finish(0) for recorder in recorders], {}, 0.0)
        return Result(outputs if sparse else outputs.toarray(), self._record(done, settings, int(inputs.shape[0]), 1))

    def _result(self, done: Done, settings: RunSettings, inputs: sp.csr_array, sparse: bool, batches: int) -> Result:
        self._tell_of_overflow(inputs, done.outputs)
        self._tell_of_scipy(done.workers, settings)
        outputs = done.outputs if sparse else done.outputs.toarray()
        if self.network.layers[-1].activation == SOFTMAX:
            outputs = _finish_softmax(done.outputs, sparse)
        return Result(outputs, self._record(done, settings, int(inputs.shape[0]), batches))

    def _tell_of_overflow(self, inputs: sp.csr_array, outputs: sp.csr_array) -> None:
        """Say that sums were beyond float32, and where the first was."""
        samples = np.unique(sp.coo_array(outputs).row[~np.isfinite(outputs.data)])
        if samples.size:
            layer = self.network.overflow(inputs[samples[:1]])
            where = f" in layer {layer}" if layer is not None else ""
            text = f"float32 overflowed{where}: {samples.size:,} of {outputs.shape[0]:,} samples have infinite outputs"
            notice(self._session.observer, f"{text} or such that are no number; scale the weights or the inputs")

    def _tell_of_scipy(self, workers: list[WorkerRecord], settings: RunSettings) -> None:
        """Say that workers went without the compiled kernel, where nobody asked them to."""
        without = [worker.rank for worker in workers if worker.kernel.startswith("scipy")]
        if without and settings.kernel == AUTO:
            ranks = "all workers" if len(without) == len(workers) else f"{len(without)} of {len(workers)} workers"
            text = "multiplied with scipy, as the compiled kernel is not installed there: slower, and other last bits"
            notice(self._session.observer, f"{ranks} {text}")

    def _settled(self, inputs: sp.csr_array) -> RunSettings:
        """The settings with a channel: where it is left open, the one that is forecast to be cheapest."""
        settings, backend = self._session.settings, self._session.backend
        if settings.channel != AUTO:
            return settings
        if settings.workers == 1:
            return replace(settings, channel=backend.channels[0])
        if self._session.choose_channel is None:
            known = ", ".join(backend.channels)
            raise ConfigError(f"channel {AUTO!r} is for sessions made by connect; name one of {known}")
        chosen = self._session.choose_channel(backend, self.network, self.partition, inputs, settings)
        return replace(settings, channel=chosen)

    def _batch_size(self, given: int | None, samples: int) -> int:
        rows = self._manifest.largest_rows
        size = self._session.settings.batch_size if given is None else _whole("batch_size", given)
        most = max(1, _MOST_BATCH_BYTES // (4 * max(1, rows)))
        if min(size, samples) > most:
            # Outputs and messages of a batch are pieces whose length has 4 bytes.
            raise InputError(f"a batch of {min(size, samples):,} samples of {rows:,} rows is too large; take {most:,}")
        return size or default_batch_size(rows, samples, self._session.settings.in_flight)

    def _record(self, done: Done, settings: RunSettings, samples: int, batches: int) -> Record:
        layers = len(self.network)
        counters = total_counters(done.workers)
        for name, count in done.client.items():
            counters[name] += count
        return Record(
            run_id=done.run,
            backend=settings.backend,
            channel=settings.channel if settings.workers > 1 else "serial",
            workers=settings.workers,
            layers=layers,
            samples=samples,
            batches=batches,
            wall_seconds=round(done.seconds, 6),
            counters=counters,
            seconds=total_seconds(done.workers),
            per_layer=by_layer(done.workers, layers),
            per_worker=done.workers,
            settings=self._configuration(settings),
        )

    def _configuration(self, settings: RunSettings) -> dict[str, Setting]:
        """What a reader of the record needs to know of the run and of the functions it ran in."""
        functions = self._session.backend.settings
        known = {key: getattr(functions, key) for key in _OF_FUNCTIONS if hasattr(functions, key)}
        memory = self._session.backend.compute.capabilities.memory_bytes
        if memory is not None:
            # What was deployed, which the settings here need not say.
            known["memory_mb"] = memory >> 20
        method = {"method": self._manifest.method, "seed": self._manifest.seed}
        return {"network": self.network.name, **asdict(settings), **method, **known}


def _whole(name: str, given: Any) -> int:
    """A number from 1 that fits the field it is sent in; `InputError` if it is none."""
    if not isinstance(given, int | np.integer) or isinstance(given, bool) or not 1 <= given <= MOST_NEURONS:
        raise InputError(f"{name} must be a whole number from 1 to {MOST_NEURONS}, not {given!r}")
    return int(given)


def _finish_softmax(logits: sp.csr_array, sparse: bool) -> Any:
    """The reduction over neurons that no worker can do alone."""
    dense = SOFTMAX.of(logits.toarray().T).T
    return sp.csr_array(dense) if sparse else np.ascontiguousarray(dense)


class Session:
    """A backend in use, with the settings of its runs. Made by `connect`; a context manager.

    `choose_channel` says which channel a run takes whose settings leave it open.

    It belongs to the process that made it: threads, locks and connections do not survive a fork, so a process that was
    forked connects anew.
    """

    def __init__(
        self,
        backend: Backend,
        settings: RunSettings,
        observer: Observer = SILENT,
        choose_channel: ChannelChoice | None = None,
    ) -> None:
        self.backend, self.settings, self.choose_channel = backend, settings, choose_channel
        self.observer, self._process = observer, os.getpid()
        backend.observer = observer
        if settings.channel != AUTO:
            backend.check_channel(settings.channel)
        check_workers(settings.workers, backend.compute.capabilities.max_workers)

    def load(self, network: Network, partition: Partition | None = None) -> Model:
        """Make the network's plan and put it into the store, unless it is there already.

        With `partition`, the plan is made of that one; `PlanError` if it fits neither the network nor the workers.
        """
        _check_types(network, partition)
        with self.following("load", network):
            return self._load(network, partition)

    def _load(self, network: Network, partition: Partition | None) -> Model:
        self.check_process()
        settings = self.settings
        method: str = settings.method
        seed = settings.seed
        if partition is not None:
            partition.check(network)
            _check_partition(partition, settings.workers)
            method, seed = custom_method(partition), partition.seed
        name = plan_name(network.fingerprint, settings.workers, method, seed)
        manifest = find_plan(self.backend.store, name)
        if manifest is None:
            made = partition or self._kept(network, name)
            made = made or make_partition(network, settings.workers, method, seed, self.observer)
            manifest = write_plan(self.backend.store, plan_id(name, made), network, made, self.observer)
        return Model(self, network, manifest)

    def check_process(self) -> None:
        """`InputError` in another process than the one that made the session."""
        if os.getpid() != self._process:
            raise InputError(f"this session belongs to process {self._process}, which has forked: connect again here")

    def following(
        self, task: str, network: Network, **more: Setting
    ) -> AbstractContextManager[Callable[[Record], None]]:
        """A block that the observer follows, if it does; gives what tells it the record of a run."""
        settings = self.settings
        about = {"network": network.name, "backend": settings.backend, "workers": settings.workers, **more}
        return following(self.observer, task, about)

    def _kept(self, network: Network, plan: str) -> Partition | None:
        """A partition that a forecast has made and kept."""
        settings = self.settings
        return find_kept(self.backend.store, plan, network, settings.workers, settings.method, settings.seed)

    def close(self) -> None:
        """Close the backend. May be called twice."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_types(network: Any, partition: Any) -> None:
    """`InputError` for what is no network or partition, such as the name of a file."""
    if not isinstance(network, Network):
        raise InputError(f"load takes a Network, not a {type(network).__name__}; a file is read with load_network")
    if partition is not None and not isinstance(partition, Partition):
        raise InputError(f"partition must be a Partition, not a {type(partition).__name__}")


def _check_partition(partition: Partition, workers: int) -> None:
    if partition.workers != workers:
        raise PlanError(f"the partition is for {partition.workers} workers, the session has {workers}")
