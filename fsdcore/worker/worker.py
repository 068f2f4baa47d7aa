"""A worker: what runs inside one function, from its invocation to its end."""

from __future__ import annotations

import ctypes
import os
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from pathlib import Path

import msgspec

from fsdcore.clock import Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address
from fsdcore.contracts.compute import Invocation, start_children
from fsdcore.contracts.store import CountingStore
from fsdcore.errors import AbortedError, ChannelError, DeadlineError, FsdError, StoreError
from fsdcore.kernels import kernel_name as name_of_kernel
from fsdcore.kernels import make_kernel
from fsdcore.kernels.base import Kernel, PreparedLayer
from fsdcore.messages.mailbox import AbortNotice, Mailbox
from fsdcore.messages.messenger import Messenger, Patience
from fsdcore.plan.files import RankPlan
from fsdcore.record.record import WorkerRecord
from fsdcore.record.recorder import Recorder
from fsdcore.worker.collectives import Collectives
from fsdcore.worker.handoff import claim, failure_of, read_inputs, write_done, write_failure, write_outputs
from fsdcore.worker.leases import Watch, remove_run
from fsdcore.worker.loop import BatchLoop, Steps, Tools, run_in_flight
from fsdcore.worker.plan_cache import PlanCache

# The name by which glibc knows how many heaps there may be.
_MOST_HEAPS = -8
# Messages that come early may take so much, however small the activations.
_LEAST_ROOM = 64 * 1024
# Of the longest wait, how much of it a message that the service puts off is sent again.
_SEND_SHARE = 0.75
# The place of the time of its beginning among what the kernel tells of a process, after its name.
_BEGAN = 19
# Threads that encode the messages of a large layer.
_ENCODERS = min(4, os.cpu_count() or 1)


def run_worker(
    backend: Backend,
    invocation: Invocation,
    *,
    end: float | None = None,
    plans: PlanCache | None = None,
    start_seconds: float = 0.0,
) -> None:
    """Run one rank to its end.

    A second worker of the same (run, rank) returns at once. A failure is told to the client (an object in the store)
    and to all peers (abort frames) before it is raised. A worker that finds its run over leaves nothing of it.

    `end`, in monotonic seconds of the backend's clock, is when the worker must have stopped by itself, with
    `DeadlineError`; `plans` keeps parts of plans for the next worker of this process. `start_seconds` goes into the
    record: what the process took to start, where it was started for this worker.
    """
    _Worker(backend, invocation, end, plans, start_seconds).run()


def process_seconds() -> float:
    """How long ago this process began; 0 where that is not to be had."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        began = int(fields[_BEGAN]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    except (OSError, AttributeError, IndexError, ValueError):
        return 0.0


def peak_memory_bytes() -> int:
    """The largest size this process has had; 0 where that is not to be had."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count what the parent was before this program took its place.
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    try:
        import resource
    except ImportError:  # as on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def keep_memory_together() -> None:
    """Have all threads of this process share one heap; for processes that do nothing but run workers.

    With a heap of its own (glibc) each thread that encodes keeps what it has let go of, which is as much again as a
    worker needs. Other C libraries have one heap anyway.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_MOST_HEAPS, 1)


class _Worker:
    def __init__(
        self,
        backend: Backend,
        invocation: Invocation,
        end: float | None,
        plans: PlanCache | None,
        start_seconds: float,
    ) -> None:
        self._backend, self._invocation = backend, invocation
        self._clock = clock = backend.clock
        run_end = clock.now() + invocation.run_seconds
        self._end = run_end if end is None else min(run_end, end)
        self._plans = plans if plans is not None else PlanCache()
        settings = invocation.settings
        self._recorder = Recorder(clock, invocation.rank, workers=settings.workers, traced=settings.trace)
        self._recorder.start_seconds = start_seconds
        self._store = CountingStore(backend.store, self._recorder.add)
        self._watch = Watch(backend.store, invocation.lease, clock)
        self._messenger: Messenger | None = None
        self._batch: int | None = None
        self._done = 0

    def run(self) -> None:
        try:
            if self._begins():
                self._work()
        except Exception as error:
            self._report(error)
            raise
        finally:
            if self._messenger is not None:
                self._messenger.close()

    def _begins(self) -> bool:
        """Whether it is for this worker to run; a start that came after the run, or twice, is in vain."""
        invocation = self._invocation
        if invocation.rank == 0 and self._watch.is_over():
            return False
        return claim(self._store, invocation.run, invocation.rank)

    def _work(self) -> None:
        invocation, settings, recorder = self._invocation, self._invocation.settings, self._recorder
        start_children(self._backend.compute, invocation, Deadline(self._end, self._clock), recorder.add)
        with ExitStack() as stack:
            kernel = make_kernel(settings.kernel, settings.threads)
            stack.callback(kernel.close)
            recorder.kernel = name_of_kernel(settings.kernel)
            with recorder.timed("load"):
                plan = stack.enter_context(self._opened(kernel))
            recorder.set_layers(len(plan))
            if settings.workers > 1:
                self._messenger = self._connect(len(plan), max(plan.input_rows.size, plan.layers[0].rows))
            self._run_batches(plan, kernel)
        self._batch, recorder.batch, recorder.layer = None, -1, 0
        self._finish()

    def _opened(self, kernel: Kernel) -> AbstractContextManager[RankPlan[PreparedLayer]]:
        """This rank's part of the plan."""
        plan, rank, workers = self._invocation.plan, self._invocation.rank, self._invocation.settings.workers
        return self._plans.opened(self._store, plan, rank, workers, kernel, self._clock)

    def _run_batches(self, plan: RankPlan[PreparedLayer], kernel: Kernel) -> None:
        invocation = self._invocation
        with ThreadPoolExecutor(_ENCODERS, "fsd-encode") as encoders:
            tools = Tools(kernel, self._recorder, self._messenger, encoders if _ENCODERS > 1 else None)
            batches = [partial(self._steps, plan, tools, *batch) for batch in enumerate(invocation.batches)]
            run_in_flight(batches, invocation.settings.in_flight, self._messenger)

    def _connect(self, layers: int, rows: int) -> Messenger:
        """Join the channel, for a rank that has so many rows of an early layer."""
        invocation, settings = self._invocation, self._invocation.settings
        address = self._address()
        channel = self._backend.open_channel(settings.channel, address)
        channel.observe(self._recorder.add)
        reports = self._backend.compute.capabilities.reports_starts
        patience = Patience(settings.deadline_seconds, self._end, self._clock, for_starts=reports)
        mailbox = Mailbox(
            self._clock,
            invocation.run,
            invocation.rank,
            settings.workers,
            len(invocation.batches),
            layers,
            self._room(rows) if channel.capabilities.releases else None,
        )
        return Messenger(channel, address, mailbox, self._recorder, patience, self._watch)

    def _room(self, rows: int) -> int:
        """Bytes of messages that may come early: half of what the activations under way take."""
        samples = sum(sorted(self._invocation.batches)[-self._invocation.settings.in_flight :])
        return max(_LEAST_ROOM, 2 * rows * samples)

    def _address(self) -> Address:
        invocation = self._invocation
        # Less than the peers wait, so that they hear what was in the way.
        patience = _SEND_SHARE * invocation.settings.deadline_seconds
        return Address(invocation.run, invocation.rank, invocation.settings.workers, invocation.lane, patience)

    def _steps(self, plan: RankPlan[PreparedLayer], tools: Tools, batch: int, samples: int) -> Steps:
        """One batch, from its inputs to its outputs; gives what it must wait for on the way."""
        loop = BatchLoop(tools, batch, samples)
        self._at(batch, 1)
        with self._recorder.timed("load"):
            layer = plan.layers[0]
        loop.first(layer, read_inputs(self._store, self._invocation.run, batch, plan.input_rows, samples))
        for number in range(2, len(plan) + 1):
            self._at(batch, number)
            self._step(len(plan))
            with self._recorder.timed("load"):
                layer = plan.layers[number - 1]
            for awaited in loop.later(number, layer):
                yield awaited
                self._at(batch, number)
        self._store_outputs(loop, batch)
        self._step(len(plan))

    def _at(self, batch: int, layer: int) -> None:
        """What is done from here on is for this batch and layer."""
        self._batch, self._recorder.batch, self._recorder.layer = batch, batch, layer

    def _step(self, layers: int) -> None:
        """Between layers: stop if a peer has failed, time is up or the run is over, and tell of progress."""
        if self._clock.now() >= self._end:
            raise DeadlineError(
                "the worker's time is up before the run is done; use more workers, smaller batches or a longer timeout"
            )
        if self._messenger is not None:
            self._messenger.check()
        else:
            self._watch.check()
        if self._invocation.rank == 0:
            self._done += 1
            total = layers * len(self._invocation.batches)
            self._backend.observer.progress("layers", self._done, total)

    def _store_outputs(self, loop: BatchLoop, batch: int) -> None:
        body, rows = loop.encode()
        if rows:
            with self._recorder.timed("send"):
                write_outputs(self._store, self._invocation.run, batch, self._invocation.rank, body)
        if self._messenger is not None:
            self._messenger.flush()
            self._messenger.finish(batch)

    def _finish(self) -> None:
        """Bring all records together at rank 0, which is also the barrier at the end of the run."""
        records = self._records()
        if records:
            write_done(self._store, self._invocation.run, records)
            self._leave_if_over()

    def _records(self) -> list[WorkerRecord]:
        """What each worker did, at rank 0."""
        if self._messenger is None:
            return [self._recorder.finish(peak_memory_bytes())]
        mine = msgspec.json.encode(self._recorder.finish(peak_memory_bytes()))
        gathered = Collectives(self._messenger, self._address()).gather(mine)
        if gathered is None:
            return []
        others = [WorkerRecord.from_json(part) for part in gathered[1:]]
        # Once more, with the calls that brought the others.
        return [self._recorder.finish(peak_memory_bytes()), *others]

    def _leave_if_over(self) -> bool:
        """Whether the run is over; then what was written after its end, by whom ever, is removed."""
        over = self._watch.is_over()
        if over:
            remove_run(self._store, self._invocation.run)
        return over

    def _report(self, error: Exception) -> None:
        """Tell client and peers, if the run goes on. What fails here as well is left to their deadlines."""
        if self._watch.is_over():
            self._try_to(error, self._leave_if_over)
            return
        invocation, known = self._invocation, isinstance(error, FsdError)
        if isinstance(error, FsdError):
            layer = self._recorder.layer or None
            error.at(run=invocation.run, rank=invocation.rank, layer=layer, batch=self._batch)
        trace = "" if known else "".join(traceback.format_exception(error))
        failure = failure_of(error, invocation.rank, self._clock.wall(), trace)
        failure = msgspec.structs.replace(failure, layer=failure.layer or self._recorder.layer or None)
        self._try_to(error, lambda: self._abort(error, failure.layer))
        if not _stopped_by_the_client(error):
            self._try_to(error, lambda: write_failure(self._store, invocation.run, failure))
        self._try_to(error, self._leave_if_over)

    def _try_to(self, error: Exception, tell: Callable[[], object]) -> None:
        try:
            tell()
        except (ChannelError, StoreError) as second:
            error.add_note(f"and it could not be told to all: {second}")

    def _abort(self, error: Exception, layer: int | None) -> None:
        invocation = self._invocation
        if isinstance(error, AbortedError) or invocation.settings.workers == 1:
            return
        if self._messenger is None:
            self._messenger = self._connect(layers=0, rows=0)
        message = error.message if isinstance(error, FsdError) else str(error)
        name = type(error).__name__
        self._messenger.abort(
            AbortNotice(rank=invocation.rank, layer=layer, batch=self._batch, error=name, message=message)
        )


def _stopped_by_the_client(error: Exception) -> bool:
    """Whether there is nobody left to tell: the client has stopped the run, and may have removed its objects."""
    return isinstance(error, AbortedError) and error.peer is None
