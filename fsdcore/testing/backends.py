"""What every backend must do as a whole: compute that starts workers, and runs that are right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsdcore.activations import TANH, clipped_relu
from fsdcore.backend import Backend
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.compute import Invocation
from fsdcore.config import RunSettings
from fsdcore.errors import ConfigError, FsdError
from fsdcore.exchange import write_inputs
from fsdcore.session import Session
from fsdcore.testing.networks import random_inputs, random_network
from fsdcore.verify import compare
from fsdcore.wire import new_run_id

__all__ = ["BackendTests"]

_NETWORK = random_network((20, 24, 18, 24, 10), (clipped_relu(2.0), TANH))
_INPUTS = random_inputs(17, 20)


class BackendTests:
    """Subclass this, and give the fixture `backend`: one that can run 5 workers, closed after the test."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        raise NotImplementedError("give the suite a fixture named backend")

    def session(self, backend: Backend, channel: str, workers: int) -> Session:
        """A session on `backend`."""
        settings = RunSettings(channel=channel, workers=workers, method="block", deadline_seconds=30.0)
        return Session(backend, settings)

    @pytest.mark.parametrize("workers", [1, 2, 5])
    def test_runs_agree_with_the_oracle_on_every_channel(self, backend: Backend, workers: int) -> None:
        for channel in backend.channels:
            result = self.session(backend, channel, workers).load(_NETWORK).run(_INPUTS, batch_size=8)
            assert compare(result.outputs, _NETWORK.infer(_INPUTS)) == []
            assert result.record.counters["invocations"] == workers

    def test_runs_leave_no_objects_behind(self, backend: Backend) -> None:
        for channel in backend.channels:
            self.session(backend, channel, 2).load(_NETWORK).run(_INPUTS)
        assert backend.store.list("runs/") == []

    def test_an_unknown_channel_is_refused(self, backend: Backend) -> None:
        with pytest.raises(ConfigError, match="no channel 'pigeon'"):
            backend.check_channel("pigeon")

    def test_starting_a_rank_twice_does_no_harm(self, backend: Backend) -> None:
        model = self.session(backend, backend.channels[0], 1).load(_NETWORK)
        invocation = self.invocation(model.plan)
        write_inputs(backend.store, invocation.run, 0, _INPUTS)
        backend.compute.invoke(invocation)
        self.await_end(backend, invocation.run)
        backend.compute.invoke(invocation)
        if backend.compute.capabilities.reports_exit:
            deadline = Deadline.after(30.0)
            while len(backend.compute.exits(invocation.run)) < 2 and not deadline.passed():
                SYSTEM_CLOCK.sleep(0.01)
            assert [end.error for end in backend.compute.exits(invocation.run)] == [None, None]
        assert backend.store.list(f"runs/{invocation.run}/end/") == [f"runs/{invocation.run}/end/done"]

    def test_a_worker_that_fails_is_reported(self, backend: Backend) -> None:
        model = self.session(backend, backend.channels[0], 1).load(_NETWORK)
        backend.store.delete([f"plans/{model.plan}/0"])
        with pytest.raises(FsdError) as caught:
            model.run(_INPUTS)
        assert caught.value.rank == 0

    def invocation(self, plan: str) -> Invocation:
        """A serial run of the suite's network."""
        return Invocation(
            run=new_run_id(),
            rank=0,
            workers=1,
            channel="queue",
            lane=0,
            plan=plan,
            batches=(int(_INPUTS.shape[0]),),
            branching=2,
            deadline_seconds=30.0,
            run_seconds=60.0,
            started=SYSTEM_CLOCK.wall(),
        )

    def await_end(self, backend: Backend, run: str) -> None:
        """Wait until the run says how it ended."""
        deadline = Deadline.after(60.0)
        while not backend.store.list(f"runs/{run}/end/"):
            assert not deadline.passed(), "the worker did not end"
            SYSTEM_CLOCK.sleep(0.01)
