"""Batches in flight: the same bits as one at a time, sooner where frames take their time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fsdcore.client.batching
from fsd_local import LocalSettings
from fsd_local.stores import MemoryStore
from fsdcore.client.run import Done, Request, execute
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Outgoing, Slot
from fsdcore.contracts.compute import new_run_id
from fsdcore.errors import ChannelError, DeadlineError, RunError, WorkerFailedError
from fsdcore.faults import Crash, Delay, Drop, Duplicate, Fault, Refuse, Reorder
from fsdcore.messages.frames import DATA, build_frames, make_body
from fsdcore.messages.messenger import Awaited, Messenger
from fsdcore.messages.object_channel import ObjectChannel
from fsdcore.network.activations import RELU, SIGMOID, TANH
from fsdcore.network.network import Network
from fsdcore.testing import random_inputs, random_network
from fsdcore.worker.loop import Steps, run_in_flight
from tests.conftest import SessionMaker

relaxed = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network((20, 24, 24, 24, 20), (RELU, TANH))


class _Post(Messenger):
    """Where every message arrives as soon as a batch begins to wait for it with all others waiting too."""

    def __init__(self) -> None:
        self.there: set[tuple[Slot, int]] = set()
        self.waits: list[list[int]] = []

    def arrived(self, awaited: Awaited) -> bool:
        return (awaited.slot, awaited.source) in self.there

    def wait_any(self, waits: object) -> None:
        assert isinstance(waits, list)
        self.waits.append([awaited.slot.batch for awaited in waits])
        self.there.add((waits[0].slot, waits[0].source))


def _batch(number: int, layers: int, log: list[tuple[int, int]]) -> Steps:
    for layer in range(layers):
        log.append((number, layer))
        yield Awaited(Slot(DATA, number, layer), 1, Deadline.after(10.0, SYSTEM_CLOCK))


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_no_more_batches_are_under_way_than_asked_for(most: int) -> None:
    log: list[tuple[int, int]] = []
    post = _Post()
    run_in_flight([lambda n=n: _batch(n, 3, log) for n in range(5)], most, post)  # type: ignore[misc]
    assert sorted(log) == [(batch, layer) for batch in range(5) for layer in range(3)]
    assert max(map(len, post.waits)) == min(most, 5)
    for batch in range(5):
        assert [layer for number, layer in log if number == batch] == [0, 1, 2]


def test_a_worker_alone_runs_batches_one_after_the_other() -> None:
    log: list[int] = []

    def batch(number: int) -> Iterator[Awaited]:
        log.append(number)
        return iter(())

    run_in_flight([lambda n=n: batch(n) for n in range(3)], 2, None)  # type: ignore[misc]
    assert log == [0, 1, 2]


@relaxed
@given(
    in_flight=st.integers(1, 5),
    batch_size=st.integers(1, 9),
    workers=st.integers(1, 4),
    channel=st.sampled_from(["queue", "object"]),
    shuffle=st.integers(-1, 50),
    background=st.booleans(),
)
def test_batches_in_flight_change_no_bit(
    make_session: SessionMaker,
    in_flight: int,
    batch_size: int,
    workers: int,
    channel: str,
    shuffle: int,
    background: bool,
) -> None:
    network = random_network((12, 16, 14, 16, 9), (RELU, SIGMOID, TANH), bias=-0.1)
    x = random_inputs(17, 12)
    local = LocalSettings(
        shuffle_seed=shuffle,
        max_frame_bytes=100,
        max_publish_bytes=200,
        max_receive_frames=3,
        background_receive=background,
        publishes_in_flight=3 if background else 1,
    )
    outputs = []
    for most, how in ((1, None), (in_flight, local)):
        with make_session(channel=channel, workers=workers, in_flight=most, settings=how) as session:
            outputs.append(session.load(network).run(x.toarray(), batch_size=batch_size))
    assert outputs[0].outputs.tobytes() == outputs[1].outputs.tobytes()
    for counter in ("messages", "rows_sent", "nonzeros_sent"):
        assert outputs[0].record.counters[counter] == outputs[1].record.counters[counter]


def test_publishes_do_not_depend_on_time(make_session: SessionMaker, network: Network) -> None:
    x, found = random_inputs(40, 20), set()
    small = LocalSettings(max_frame_bytes=120, max_publish_bytes=300, shuffle_seed=3)
    for faults in ((), (Delay(seconds=0.003),), (Delay(receives=2, share=0.5), Reorder(seed=1))):
        for in_flight in (1, 4):
            session = make_session(*faults, workers=4, in_flight=in_flight, settings=small)
            counters = session.load(network).run(x, batch_size=10).record.counters
            found.add(tuple(counters[name] for name in ("messages", "frames", "publishes", "bytes_sent")))
    assert len(found) == 1


@pytest.mark.parametrize("channel", ["queue", "object"])
@pytest.mark.parametrize(
    "faults",
    [
        (Duplicate(share=0.5),),
        (Drop(share=0.3),),
        (Delay(seconds=0.01),),
        (Duplicate(share=0.3), Reorder(seed=1), Delay(receives=2, share=0.3)),
    ],
    ids=lambda faults: "+".join(type(fault).__name__ for fault in faults),
)
def test_misdelivery_leaves_batches_in_flight_exact(
    make_session: SessionMaker, network: Network, channel: str, faults: tuple[Fault, ...]
) -> None:
    x = random_inputs(12, 20)
    plain = make_session(workers=4, in_flight=1).load(network).run(x, batch_size=3)
    quick = LocalSettings(visibility_timeout=0.1)
    faulty = make_session(*faults, workers=4, channel=channel, in_flight=3, settings=quick).load(network)
    assert (plain.outputs != faulty.run(x, batch_size=3).outputs).nnz == 0


def test_the_object_channel_looks_for_each_batch_by_itself() -> None:
    store, run = MemoryStore(), new_run_id(SYSTEM_CLOCK)
    source, target = (ObjectChannel(store, Address(run, rank, 2)) for rank in range(2))
    for batch in range(2):
        target.expect(Slot(DATA, batch, 2), [0])
    (frame,) = build_frames(run, Slot(DATA, 1, 2), 0, 1, make_body(b"of batch 1"), 1 << 20)
    source.send([Outgoing(1, frame)])
    assert [item.data for item in target.receive(Deadline.after(10.0, SYSTEM_CLOCK))] == [frame]


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_a_failure_ends_all_batches_with_its_place(make_session: SessionMaker, network: Network, channel: str) -> None:
    session = make_session(Refuse("send", by=2, skip=3, times=1), workers=4, channel=channel, in_flight=4)
    with pytest.raises(ChannelError, match="made to fail") as caught:
        session.load(network).run(random_inputs(12, 20), batch_size=3)
    assert caught.value.rank == 2
    assert caught.value.layer is not None
    assert caught.value.batch is not None


def test_a_death_ends_all_batches(make_session: SessionMaker, network: Network) -> None:
    session = make_session(Crash("send", by=3, skip=4, times=1), workers=4, in_flight=4)
    with pytest.raises(WorkerFailedError, match="without a word"):
        session.load(network).run(random_inputs(12, 20), batch_size=3)


def test_a_message_that_never_comes_is_the_oldest_batch_s_deadline(
    make_session: SessionMaker, network: Network
) -> None:
    session = make_session(workers=2, deadline_seconds=0.3, in_flight=3)
    invoke = session.backend.compute.invoke

    def all_but_one(invocation) -> None:  # type: ignore[no-untyped-def]
        if invocation.rank != 1:
            invoke(invocation)

    session.backend.compute.invoke = all_but_one  # type: ignore[method-assign]
    with pytest.raises(DeadlineError, match=r"rank 0.*layer 2, peer 1: nothing came from rank 1"):
        session.load(network).run(random_inputs(12, 20), batch_size=3)


def test_a_stop_by_the_client_ends_all_batches(make_session: SessionMaker, network: Network) -> None:
    session = make_session(Delay(seconds=0.2), workers=3, run_seconds=0.3, in_flight=4)
    with pytest.raises(RunError):
        session.load(network).run(random_inputs(12, 20), batch_size=3)


def _requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What is asked for from here on."""
    requests: list[Request] = []

    def spy(backend: Backend, request: Request) -> Done:
        requests.append(request)
        return execute(backend, request)

    monkeypatch.setattr(fsdcore.client.session, "execute", spy)
    return requests


@pytest.mark.parametrize(
    ("samples", "batch_size", "asked", "sizes", "in_flight"),
    [
        (16, None, 4, [16], 1),
        (17, None, 4, [4, 4, 4, 4, 1], 4),
        (17, None, 1, [16, 1], 1),
        (24, 8, 4, [8, 8, 8], 2),
        (12, 3, 3, [3, 3, 3, 3], 3),
    ],
)
def test_memory_bounds_the_batches_under_way(
    make_session: SessionMaker,
    monkeypatch: pytest.MonkeyPatch,
    samples: int,
    batch_size: int | None,
    asked: int,
    sizes: list[int],
    in_flight: int,
) -> None:
    network = random_network((10, 8, 8))
    monkeypatch.setattr(fsdcore.client.batching, "_UNDER_WAY_BYTES", 16 * 4 * 5)
    requests = _requests(monkeypatch)
    with make_session(workers=2, in_flight=asked) as session:
        session.load(network).run(np.ones((samples, 10)), batch_size=batch_size)
    (request,) = requests
    assert [batch.shape[0] for batch in request.batches] == sizes
    assert request.settings.in_flight == in_flight
