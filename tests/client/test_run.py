"""The client's side of a run: what it holds, whom it blames, and what it leaves however it ends."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from fsd_local import LocalBackend, LocalSettings
from fsd_local.stores import MemoryStore
from fsdcore.client.session import Session
from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.contracts.compute import Invocation
from fsdcore.contracts.settings import RunSettings
from fsdcore.contracts.store import Store
from fsdcore.errors import ChannelError, StoreError
from fsdcore.testing import random_inputs, random_network
from fsdcore.testing.clock import VirtualClock
from fsdcore.worker.leases import LEASES, take_lane

NETWORK = random_network((12, 16, 16, 10))
INPUTS = random_inputs(9, 12)


class Listening:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        del task, done, total

    def notice(self, text: str) -> None:
        self.notices.append(text)


class Moody(MemoryStore):
    """A store that refuses to list or to delete what is under a prefix."""

    unlisted = undeleted = "-"

    def list(self, prefix: str) -> list[str]:
        if prefix.startswith(self.unlisted):
            raise StoreError("no list today")
        return super().list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        given = list(keys)
        if any(key.startswith(self.undeleted) for key in given):
            raise StoreError("no delete today")
        super().delete(given)


class Over(LocalBackend):
    """One lane, and a store that was made elsewhere."""

    def __init__(self, store: Store, clock: Clock) -> None:
        super().__init__(LocalSettings(lanes=1), clock)
        self._store = store


def session_on(
    store: MemoryStore, observer: Listening | None = None, clock: Clock = SYSTEM_CLOCK, **run: object
) -> Session:
    backend = Over(store, clock)
    settings = RunSettings(**{"workers": 2, "channel": "queue", "method": "block", **run})  # type: ignore[arg-type]
    return Session(backend, settings, observer or Listening())


@pytest.mark.parametrize("cause", [ChannelError("the first cause"), KeyboardInterrupt()])
def test_a_clean_up_that_fails_does_not_replace_the_first_cause(
    cause: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Moody()
    session = session_on(store)
    model = session.load(NETWORK)

    def fail(_: Invocation) -> None:
        store.unlisted = "runs/"
        raise cause

    monkeypatch.setattr(session.backend.compute, "invoke", fail)
    with pytest.raises(type(cause)) as caught:
        model.run(INPUTS)
    assert caught.value is cause
    session.close()


def test_a_refused_delete_loses_no_result_keeps_no_lane_and_is_made_up_for() -> None:
    store = Moody()
    store.undeleted = "runs/"
    with session_on(store, run_seconds=5.0) as session:
        model = session.load(NETWORK)
        first = model.run(INPUTS)
        assert store.list(f"runs/{first.record.run_id}/")
        store.undeleted = "-"
        second = model.run(INPUTS)
        assert (first.outputs != second.outputs).nnz == 0
        assert store.list("runs/") == []


@pytest.mark.parametrize(("workers", "channel"), [(1, "queue"), (2, "queue"), (2, "object")])
def test_of_a_run_that_is_done_only_the_number_of_its_lane_is_left(workers: int, channel: str) -> None:
    with session_on(MemoryStore(), workers=workers, channel=channel) as session:
        session.load(NETWORK).run(INPUTS)
        assert session.backend.store.list("runs/") == []
        lanes = 1 if workers > 1 and channel == "queue" else 0
        assert len(session.backend.store.list(LEASES)) == lanes


def test_who_waits_for_a_lane_says_so_and_the_wait_is_not_of_the_run() -> None:
    observer, clock = Listening(), VirtualClock()
    with session_on(MemoryStore(), observer, clock) as session:
        model = session.load(NETWORK)
        held = take_lane(session.backend.store, "queue", 1, 900.0, Deadline.after(0.0, clock), print)

        def give_back() -> None:
            clock.sleep(9.5)
            held.release()

        clock.start(give_back, "gives back")
        result = model.run(INPUTS)
    (line,) = observer.notices
    assert line.startswith(f"waiting for a lane of the queue channel: run {held.run} has it since ")
    # It looks again each second, and messages of threads take no time.
    assert clock.now() == pytest.approx(10.0, abs=0.1)
    assert result.record.wall_seconds < 0.1
