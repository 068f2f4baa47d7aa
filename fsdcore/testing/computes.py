"""What every compute must do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest

from fsdcore.clock import Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.compute import Exit, Invocation, new_run_id
from fsdcore.contracts.settings import RunSettings
from fsdcore.network.activations import TANH, clipped_relu
from fsdcore.network.network import Network
from fsdcore.partition import make_partition
from fsdcore.plan.files import find_plan, plan_id, plan_name, write_plan
from fsdcore.testing.networks import random_inputs, random_network
from fsdcore.worker.handoff import read_done, read_failure, write_inputs

_NETWORK = random_network((20, 24, 18, 24, 10), (clipped_relu(2.0), TANH))
_INPUTS = random_inputs(17, 20)
_PATIENCE = 60.0


class ComputeTests:
    """Subclass this, and give the fixture `backend`: one that can run 5 workers, closed after the test.

    A worker is known by what it leaves in the backend's store, never by what the compute says of it.
    """

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        raise NotImplementedError("give the suite a fixture named backend")

    def test_one_invocation_starts_every_rank_of_the_tree(self, backend: Backend) -> None:
        for workers, branching in ((1, 4), (5, 1), (5, 4)):
            invocation = self.invocation(backend, workers, branching)
            backend.compute.invoke(invocation)
            self.await_end(backend, invocation.run)
            assert [record.rank for record in read_done(backend.store, invocation.run)] == list(range(workers))

    def test_starting_a_rank_twice_does_no_harm(self, backend: Backend) -> None:
        invocation = self.invocation(backend)
        backend.compute.invoke(invocation)
        self.await_end(backend, invocation.run)
        backend.compute.invoke(invocation)
        if backend.compute.capabilities.reports_exit:
            assert [end.error for end in self.await_exits(backend, invocation.run, 2)] == [None, None]
        assert backend.store.list(f"runs/{invocation.run}/end/") == [f"runs/{invocation.run}/end/done"]

    def test_a_worker_that_fails_says_so(self, backend: Backend) -> None:
        # A network of its own: a worker may have kept its part of a plan that it has seen.
        network = random_network((20, 24, 10), seed=random.getrandbits(32))
        invocation = self.invocation(backend, network=network)
        backend.store.delete([f"plans/{invocation.plan}/0"])
        backend.compute.invoke(invocation)
        (key,) = self.await_end(backend, invocation.run)
        assert read_failure(backend.store, key).rank == 0
        if backend.compute.capabilities.reports_exit:
            (end,) = self.await_exits(backend, invocation.run, 1)
            assert (end.rank, end.error is None) == (0, False)

    def test_a_run_nobody_knows_has_no_exits(self, backend: Backend) -> None:
        assert list(backend.compute.exits(new_run_id(backend.clock))) == []

    def test_cancelling_what_has_ended_is_harmless(self, backend: Backend) -> None:
        invocation = self.invocation(backend)
        backend.compute.invoke(invocation)
        self.await_end(backend, invocation.run)
        backend.compute.cancel(invocation.run)
        backend.compute.cancel(new_run_id(backend.clock))

    def invocation(
        self, backend: Backend, workers: int = 1, branching: int = 2, network: Network = _NETWORK
    ) -> Invocation:
        """Rank 0 of a run of `network`, whose plan and inputs are in the store."""
        name, partition = (
            plan_name(network.fingerprint, workers, "block", 0),
            make_partition(network, workers, "block", 0),
        )
        plan = plan_id(name, partition)
        if find_plan(backend.store, name) is None:
            write_plan(backend.store, plan, network, partition)
        run = new_run_id(backend.clock)
        write_inputs(backend.store, run, 0, _INPUTS)
        settings = RunSettings(
            channel=backend.channels[0], workers=workers, branching=branching, in_flight=1, deadline_seconds=30.0
        )
        batches = (int(_INPUTS.shape[0]),)
        return Invocation(run=run, rank=0, lane=0, plan=plan, batches=batches, settings=settings, run_seconds=_PATIENCE)

    def await_end(self, backend: Backend, run: str) -> list[str]:
        """Wait until the run says how it ended; returns the keys that say so."""
        deadline = Deadline.after(_PATIENCE, backend.clock)
        while not (ended := backend.store.list(f"runs/{run}/end/")):
            assert not deadline.passed(), "the worker did not end"
            backend.clock.sleep(0.01)
        return ended

    def await_exits(self, backend: Backend, run: str, count: int) -> Sequence[Exit]:
        """Wait until `count` workers of the run are known to have ended."""
        deadline = Deadline.after(_PATIENCE, backend.clock)
        while len(exits := backend.compute.exits(run)) < count:
            assert not deadline.passed(), f"the ends of {count} workers were not told"
            backend.clock.sleep(0.01)
        return exits
