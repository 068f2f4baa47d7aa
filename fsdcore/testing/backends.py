"""What every backend must do as a whole: runs that are right, and leave nothing behind."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from fsdcore.client.session import Session
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import ConfigError, FsdError
from fsdcore.network.activations import TANH, clipped_relu
from fsdcore.network.verify import verify
from fsdcore.testing.networks import random_inputs, random_network

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
            assert verify(_NETWORK, _INPUTS, result.outputs).right
            assert result.record.counters["invocations"] == workers

    def test_runs_leave_no_objects_behind(self, backend: Backend) -> None:
        # A run before that was broken off may have left some, where nobody tells when its workers end.
        before = set(backend.store.list("runs/"))
        for channel in backend.channels:
            self.session(backend, channel, 2).load(_NETWORK).run(_INPUTS)
        assert set(backend.store.list("runs/")) <= before

    def test_an_unknown_channel_is_refused(self, backend: Backend) -> None:
        with pytest.raises(ConfigError, match="no channel 'pigeon'"):
            backend.check_channel("pigeon")

    def test_a_worker_that_fails_is_reported(self, backend: Backend) -> None:
        # A network of its own: a worker may have kept its part of a plan that it has seen.
        network = random_network((20, 24, 10), seed=random.getrandbits(32))
        model = self.session(backend, backend.channels[0], 1).load(network)
        backend.store.delete([f"plans/{model.plan}/0"])
        with pytest.raises(FsdError) as caught:
            model.run(_INPUTS)
        assert caught.value.rank == 0
