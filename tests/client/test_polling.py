"""When a client looks for the end of its run: what it does and what forecasts say of it are the same."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from fsd_local import LocalBackend, LocalSettings
from fsd_local.stores import MemoryStore
from fsdcore.client.run import Polling, Request, execute
from fsdcore.client.session import Session
from fsdcore.clock import Clock
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.compute import Invocation
from fsdcore.contracts.limits import StoreCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.contracts.store import Store
from fsdcore.errors import KeyMissingError
from fsdcore.estimate.speeds import StoreModel
from fsdcore.estimate.timing import Looks, found_after, looks
from fsdcore.testing import random_network
from fsdcore.testing.clock import VirtualClock
from fsdcore.worker.worker import run_worker

_STORE = StoreModel(put_seconds=0.05, get_seconds=0.03, bytes_per_second=1e8)


class Slow(MemoryStore):
    """Asked for the end of a run, it takes `_STORE`'s time, and hides the end until `done`."""

    def __init__(self, clock: VirtualClock, latency: float, done: float) -> None:
        super().__init__()
        self._clock, self._latency, self._done = clock, latency, done
        self.lists = self.gets = 0
        self.found = 0.0

    @property
    def capabilities(self) -> StoreCapabilities:
        return StoreCapabilities(latency_seconds=self._latency)

    def list(self, prefix: str) -> list[str]:
        keys = super().list(prefix)
        if not prefix.endswith("/end/"):
            return keys
        self.lists += 1
        return keys if self._there() else []

    def get(self, key: str) -> bytes:
        if not key.endswith("/end/done"):
            return super().get(key)
        self.gets += 1
        if not self._there():
            raise KeyMissingError(key)
        self.found = self._clock.now()
        return super().get(key)

    def _there(self) -> bool:
        self._clock.sleep(_STORE.get_seconds)
        return self._clock.now() >= self._done


class Over(LocalBackend):
    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(LocalSettings(), clock)
        self._store = store


def _watched(latency: float, done: float, monkeypatch: pytest.MonkeyPatch) -> Looks:
    """What a client did in a run of one worker that was done after so many seconds."""
    clock = VirtualClock()
    store = Slow(clock, latency, done)
    backend: Backend = Over(store, clock)
    inner = Over(store, clock)
    settings = RunSettings(workers=1, run_seconds=1000.0)
    network = random_network((6, 5))
    plan = Session(backend, settings).load(network).plan

    def start(invocation: Invocation) -> None:
        run_worker(inner, invocation)

    monkeypatch.setattr(backend.compute, "invoke", start)
    batch = sp.csr_array(np.ones((1, 6), np.float32))
    execute(backend, Request(plan, np.zeros(5, np.int32), [batch], settings))
    return Looks(store.lists, store.gets, store.found)


@pytest.mark.parametrize("latency", [0.0, 0.02])
@pytest.mark.parametrize("done", [0.0, 0.4, 1.0, 30.0])
def test_a_client_looks_as_forecasts_say(done: float, latency: float, monkeypatch: pytest.MonkeyPatch) -> None:
    watched, said = _watched(latency, done, monkeypatch), looks(0.0, done, latency, _STORE)
    assert watched[:2] == said[:2]
    assert watched.found == pytest.approx(said.found)
    # On average it is found half a pause after it is there, and two requests.
    pause = Polling(latency, 0.0).pause(done)
    assert abs(found_after(done, latency, _STORE) - watched.found) <= pause / 2 + 2 * _STORE.get_seconds + 1e-9


@pytest.mark.parametrize("done", [0.0, 0.01, 0.5, 7.0, 900.0])
def test_where_requests_cost_money_a_run_of_any_length_takes_few_lists(done: float) -> None:
    found = looks(0.0, done, 0.02, _STORE)
    assert found.lists < 100
    assert found.gets >= 1


@pytest.mark.parametrize("latency", [0.0, 0.02])
@pytest.mark.parametrize("done", [0.0, 0.01, 0.5, 7.0, 900.0])
def test_the_end_is_found_soon_after_it_is_there(done: float, latency: float) -> None:
    found = looks(0.0, done, latency, _STORE)
    assert done <= found.found <= done + 0.1 + 2 * _STORE.get_seconds


def test_a_pause_is_never_shorter_than_a_request() -> None:
    assert Polling(0.05, 0.0).pause(0.1) == 0.05
    assert Polling(0.0, 0.0).pause(0.0) > 0
