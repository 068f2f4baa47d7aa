"""One run, from the client's side: hand in the inputs, start rank 0, wait, bring in the outputs, clean up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

import fsdcore.errors
from fsdcore.clock import Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address
from fsdcore.contracts.compute import Exit, Invocation
from fsdcore.contracts.settings import RunSettings
from fsdcore.contracts.store import CountingStore
from fsdcore.errors import (
    AccessDeniedError,
    ComputeError,
    DeadlineError,
    FsdError,
    KeyMissingError,
    StoreError,
    WorkerFailedError,
)
from fsdcore.messages.frames import CLIENT
from fsdcore.messages.mailbox import AbortNotice
from fsdcore.messages.messenger import abort_frames
from fsdcore.messages.packing import pack
from fsdcore.partition.base import Owners
from fsdcore.record.observer import notice
from fsdcore.record.record import WorkerRecord
from fsdcore.text import printable
from fsdcore.worker.handoff import Failure, read_done, read_failure, read_outputs, write_inputs
from fsdcore.worker.leases import Heartbeat, Lease, remove_run, take_lane, take_lease

# How long the client waits, after a failure, for the workers to end before it removes the run's objects.
_GRACE_SECONDS = 10.0
# How long workers are told to stop where the service puts that off.
_ABORT_SECONDS = 5.0


class Done(NamedTuple):
    """What a run gave: outputs CSR `(samples, outputs)` before a softmax, and what each worker did."""

    run: str
    outputs: sp.csr_array
    workers: list[WorkerRecord]
    client: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Request:
    """What to run: a plan in the backend's store, who owns the last activations, and inputs by batch."""

    plan: str
    owners: Owners
    batches: Sequence[sp.csr_array]
    settings: RunSettings


def execute(backend: Backend, request: Request) -> Done:
    """Run to the end, by the clock of the backend.

    Raises the first cause if a worker fails, naming rank and layer; `DeadlineError` if the run takes longer than
    `run_seconds`. However it ends, the workers are stopped and the run's objects are removed.
    """
    lease = _take_lease(backend, request.settings)
    with Heartbeat(lease) as heartbeat:
        run = _Run(backend, request, lease, heartbeat)
        try:
            return run.execute()
        except BaseException as error:
            run.stop(error)
            raise
        finally:
            run.clean()


def _take_lease(backend: Backend, settings: RunSettings) -> Lease:
    """The run's lease, with a lane if its channel has such; waits for a lane as long as a run may last."""
    seconds, channel = settings.run_seconds, settings.channel
    limits = backend.channel_capabilities(channel) if settings.workers > 1 else None
    if limits is None or limits.lanes is None:
        return take_lease(backend.store, seconds, backend.clock)
    pool, told = limits.lane_pool or channel, partial(notice, backend.observer)
    return take_lane(backend.store, pool, limits.lanes, seconds, Deadline.after(seconds, backend.clock), told)


class _Run:
    def __init__(self, backend: Backend, request: Request, lease: Lease, heartbeat: Heartbeat) -> None:
        self._backend, self._request, self._clock = backend, request, backend.clock
        self._settings, self._lease, self._heartbeat = request.settings, lease, heartbeat
        self.id = lease.run
        self._counts: dict[str, int] = {}
        self._store = CountingStore(backend.store, self._count)
        self._started = False
        self._polling = Polling(self._store.capabilities.latency_seconds, self._clock.now())

    def _count(self, counter: str) -> None:
        self._counts[counter] = self._counts.get(counter, 0) + 1

    def execute(self) -> Done:
        begin = self._clock.now()
        deadline = Deadline.after(self._settings.run_seconds, self._clock)
        for batch, inputs in enumerate(self._request.batches):
            write_inputs(self._store, self.id, batch, inputs)
        self._started = True
        self._count("invocations")
        self._backend.compute.invoke(self._invocation(deadline))
        records = self._wait(deadline)
        outputs = [self._outputs(batch) for batch in range(len(self._request.batches))]
        joined = sp.csr_array(sp.vstack(outputs, format="csr"))
        return Done(self.id, joined, records, self._counts, self._clock.now() - begin)

    def _invocation(self, deadline: Deadline) -> Invocation:
        return Invocation(
            run=self.id,
            rank=0,
            lane=self._lease.lane or 0,
            lease=self._lease.key,
            plan=self._request.plan,
            batches=tuple(int(inputs.shape[0]) for inputs in self._request.batches),
            settings=self._settings,
            run_seconds=deadline.remaining(),
        )

    def _wait(self, deadline: Deadline) -> list[WorkerRecord]:
        """Until the run is done; raises the first cause if it fails."""
        begin = self._clock.now()
        while True:
            lost = self._lost()
            done = self._ended(at_once=lost is not None)
            if done is not None:
                return done
            self._heartbeat.check()
            if lost:
                raise WorkerFailedError(f"the worker ended without a word: {lost.error}", run=self.id, rank=lost.rank)
            if deadline.passed():
                raise DeadlineError(f"the run did not end within {self._settings.run_seconds:g} s", run=self.id)
            pause = self._polling.pause(self._clock.now() - begin)
            self._clock.sleep(min(pause, deadline.remaining()))

    def _ended(self, at_once: bool) -> list[WorkerRecord] | None:
        """What the workers did, if the run is done; raises the first cause if it failed; None if neither is so yet.

        Failures are looked for now and then only, unless `at_once`.
        """
        if not (self._polling.lists(self._clock.now()) or at_once):
            try:
                return read_done(self._store, self.id)
            except KeyMissingError:
                return None
        ended = self._store.list(f"runs/{self.id}/end/")
        if f"runs/{self.id}/end/done" in ended:
            return read_done(self._store, self.id)
        if ended:
            raise self._first_cause(ended)
        return None

    def _lost(self) -> Exit | None:
        """A worker that is known to have ended with an error. Asked before the store, which may explain it."""
        if not self._backend.compute.capabilities.reports_exit:
            return None
        return next((end for end in self._backend.compute.exits(self.id) if end.error is not None), None)

    def _first_cause(self, keys: list[str]) -> FsdError:
        failures = [read_failure(self._store, key) for key in keys]
        return _as_error(min(failures, key=_blame), self.id)

    def _outputs(self, batch: int) -> sp.csr_array:
        """The last activations of a batch, brought together from all ranks."""
        samples, owners = int(self._request.batches[batch].shape[0]), self._request.owners
        parts = []
        for rank in np.unique(owners).tolist():
            neurons = np.flatnonzero(owners == rank)
            rows = read_outputs(self._store, self.id, batch, rank, neurons.size, samples)
            neuron, column = np.nonzero(rows.values)
            parts.append((rows.values[neuron, column], rows.columns[column], neurons[neuron]))
        values, sample, neuron = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return sp.csr_array(sp.coo_array((values, (sample, neuron)), shape=(samples, owners.size)))

    def stop(self, error: BaseException) -> None:
        """Tell all workers to stop, and wait for them where that can be seen. `error` stays the cause, whatever fails.

        All look at the lease now and then; those that wait for messages hear sooner.
        """
        if not self._started:
            return
        steps: list[Callable[[], None]] = [self._lease.end]
        if self._settings.workers > 1:
            steps.append(lambda: self._send_abort(error))
        steps.append(lambda: self._backend.compute.cancel(self.id))
        # A start that was interrupted may have been accepted: its worker, begun after the end, would leave its marks.
        refused = isinstance(error, ComputeError | AccessDeniedError)
        steps.append(lambda: self._await_exits(0 if refused else 1))
        for step in steps:
            try:
                step()
            except FsdError as second:
                error.add_note(f"and the workers could not be told to stop: {second}")

    def _send_abort(self, error: BaseException) -> None:
        workers, channel_kind = self._settings.workers, self._settings.channel
        said = AbortNotice(error=type(error).__name__, message=str(error) or "the run was stopped")
        address = Address(self.id, 0, workers, self._lease.lane or 0, _ABORT_SECONDS)
        channel = self._backend.open_channel(channel_kind, address)
        try:
            frames = abort_frames(self.id, CLIENT, workers, said, channel.capabilities.max_frame_bytes)
            for publish in pack(frames, channel.capabilities):
                channel.send(publish)
        finally:
            channel.close()

    def _await_exits(self, least: int) -> None:
        """Where the service tells, wait a little for the workers to end: `least` of them, and all that have begun."""
        if not self._backend.compute.capabilities.reports_exit:
            return
        begin, deadline = self._clock.now(), Deadline.after(_GRACE_SECONDS, self._clock)
        while len(self._backend.compute.exits(self.id)) < max(least, self._claimed()) and not deadline.passed():
            self._clock.sleep(self._polling.pause(self._clock.now() - begin))

    def _claimed(self) -> int:
        return len(self._store.list(f"runs/{self.id}/claims/"))

    def clean(self) -> None:
        """Remove the run's objects and give the lease back; a store that refuses is no reason to lose a result.

        What could not be removed is, by the next run.
        """
        try:
            remove_run(self._backend.store, self.id)
            self._lease.release()
        except StoreError:
            with suppress(StoreError):
                self._lease.end()


def _blame(failure: Failure) -> tuple[int, float]:
    """What to blame first: a cause before a wait in vain, and either before a stop on request; then the earliest."""
    order = {"AbortedError": 2, "DeadlineError": 1}
    return order.get(failure.error, 0), failure.at


def _as_error(failure: Failure, run: str) -> FsdError:
    """The failure as an exception, of its own class if it is one of the framework's."""
    kind = getattr(fsdcore.errors, failure.error, None)
    known = isinstance(kind, type) and issubclass(kind, FsdError) and not issubclass(kind, fsdcore.errors.FormatError)
    message = printable(failure.message if known else f"{failure.error}: {failure.message}")
    error: FsdError = kind(message) if known and kind is not None else WorkerFailedError(message)
    if failure.trace:
        error.add_note(failure.trace)
    return error.at(run=run, rank=failure.rank, layer=failure.layer, batch=failure.batch, peer=failure.peer)


_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1
# The client looks again after this share of the time it has waited, so that little is lost on a short run.
_SHARE_PER_LOOK = 0.02
# A list costs as much as ten reads. Between two of them the client waits as long as so many small requests take, or
# this share of the time the run has taken, whichever is longer: so a run of any length takes less than a hundred.
_REQUESTS_PER_LIST = 50
_SHARE_PER_LIST = 0.05


class Polling:
    """The looks of one client. All times are seconds of one clock, whichever it is; the run began at `since`.

    `latency`: what a request of the store takes; 0 where requests cost nothing. Where they take time and money, the
    end is asked for by name, and failures are looked for less often, by a list.
    """

    def __init__(self, latency: float, since: float) -> None:
        self._latency, self._since, self._next_list = latency, since, since

    def lists(self, now: float) -> bool:
        """Whether the look at `now` is a list; if not, it is a read of the end by its name."""
        if now < self._next_list:
            return False
        if self._latency:
            gap = max(_REQUESTS_PER_LIST * self._latency, _SHARE_PER_LIST * (now - self._since))
            self._next_list = now + gap
        return True

    def pause(self, waited: float) -> float:
        """Until the next look, of a client that has waited for `waited` seconds."""
        shortest = max(_SHORTEST_PAUSE, self._latency)
        return max(shortest, min(_SHARE_PER_LOOK * waited, _LONGEST_PAUSE))
