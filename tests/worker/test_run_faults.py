"""Runs under faults: exact, or ended in time with one error that says where."""

from __future__ import annotations

import threading
import time

import pytest

from fsd_local import LocalSettings
from fsdcore.client.session import Session
from fsdcore.contracts.channel import Address, Outgoing, Slot
from fsdcore.errors import ChannelError, DeadlineError, FsdError, RunError, StoreError, WireError, WorkerFailedError
from fsdcore.faults import Crash, Delay, Drop, Duplicate, Fault, Refuse, Reorder
from fsdcore.messages.frames import DATA, Body, build_frames
from fsdcore.network.network import Network
from fsdcore.testing import random_inputs, random_network
from fsdcore.testing.clock import VirtualClock
from tests.conftest import SessionMaker

QUICK = LocalSettings(visibility_timeout=0.1)
CHANNELS = ["queue", "object"]


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network((20, 24, 24, 24, 20))


def settled(threads_before: int) -> bool:
    """Whether all workers have ended; waits for at most two seconds."""
    end = time.monotonic() + 2.0
    while threading.active_count() > threads_before and time.monotonic() < end:
        time.sleep(0.01)
    return threading.active_count() <= threads_before


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    "faults",
    [
        (Duplicate(share=0.5),),
        (Reorder(seed=3),),
        (Delay(receives=2, share=0.5),),
        (Drop(share=0.3),),
        (Duplicate(share=0.3), Reorder(seed=1), Delay(receives=2, share=0.3)),
    ],
    ids=lambda faults: "+".join(type(fault).__name__ for fault in faults),
)
def test_misdelivery_leaves_the_result_exact(
    make_session: SessionMaker, network: Network, channel: str, faults: tuple[Fault, ...]
) -> None:
    x = random_inputs(12, 20)
    plain = make_session(workers=4, channel=channel).load(network).run(x)
    faulty = make_session(*faults, workers=4, channel=channel, settings=QUICK).load(network).run(x)
    assert (plain.outputs != faulty.outputs).nnz == 0


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("verb", ["send", "receive"])
def test_a_channel_that_fails_ends_the_run_with_its_place(
    make_session: SessionMaker, network: Network, channel: str, verb: str
) -> None:
    session = make_session(Refuse(verb, by=2, skip=1, times=1), workers=4, channel=channel)
    before = threading.active_count()
    with pytest.raises(ChannelError, match="made to fail") as caught:
        session.load(network).run(random_inputs(12, 20))
    assert caught.value.rank == 2
    assert caught.value.layer is not None
    assert settled(before)


@pytest.mark.parametrize("verb", ["get_range", "list", "get"])
def test_a_store_that_fails_ends_the_run(make_session: SessionMaker, network: Network, verb: str) -> None:
    session = make_session(Refuse(verb, about="runs/", times=1), workers=4)
    with pytest.raises(StoreError, match="made to fail"):
        session.load(network).run(random_inputs(12, 20))


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_worker_that_dies_stops_its_peers(make_session: SessionMaker, network: Network, channel: str) -> None:
    session = make_session(Crash("send", by=3, skip=1, times=1), workers=4, channel=channel)
    before = threading.active_count()
    with pytest.raises(WorkerFailedError, match=r"rank 3.*without a word"):
        session.load(network).run(random_inputs(12, 20))
    assert settled(before)
    assert session.backend.store.list("runs/") == []


def test_a_message_that_never_comes_is_a_deadline_naming_rank_layer_and_peer(
    make_session: SessionMaker, network: Network
) -> None:
    session = make_session(clock=VirtualClock(), workers=2, deadline_seconds=0.3)
    session.backend.compute.invoke = _without(session, rank=1)  # type: ignore[method-assign]
    with pytest.raises(DeadlineError, match=r"rank 0.*layer 2, peer 1: nothing came from rank 1"):
        session.load(network).run(random_inputs(12, 20))


def _without(session: Session, rank: int):  # type: ignore[no-untyped-def]
    invoke = session.backend.compute.invoke

    def some(invocation) -> None:  # type: ignore[no-untyped-def]
        if invocation.rank != rank:
            invoke(invocation)

    return some


def test_a_run_that_takes_too_long_ends(make_session: SessionMaker, network: Network) -> None:
    clock = VirtualClock()
    session = make_session(clock=clock, workers=2, run_seconds=60.0, deadline_seconds=600.0)
    session.backend.compute.invoke = _without(session, rank=1)  # type: ignore[method-assign]
    with pytest.raises(RunError):
        session.load(network).run(random_inputs(12, 20))
    assert 60.0 <= clock.now() <= 61.0


@pytest.mark.parametrize("data", [b"", b"garbage", b"{}"])
def test_what_is_no_frame_is_thrown_away_and_counted(make_session: SessionMaker, network: Network, data: bytes) -> None:
    session = make_session(workers=3, settings=LocalSettings(lanes=1))
    model, x = session.load(network), random_inputs(12, 20)
    undisturbed = model.run(x)
    session.backend.open_channel("queue", Address("0" * 16, 0, 3)).send([Outgoing(1, data)])
    result = model.run(x)
    assert (result.outputs != undisturbed.outputs).nnz == 0
    assert (undisturbed.record.counters["dropped"], result.record.counters["dropped"]) == (0, 1)
    assert session.backend.open_channel("queue", Address("0" * 16, 1, 3)).purge() == 0


@pytest.mark.parametrize("data", [b"FS", b"FS\x02" + bytes(50), b"FS\x01" + bytes(50)])
def test_a_hostile_frame_ends_the_run_with_a_wire_error(
    make_session: SessionMaker, network: Network, data: bytes
) -> None:
    session = make_session(workers=3, settings=LocalSettings(lanes=1))
    model = session.load(network)
    session.backend.open_channel("queue", Address("0" * 16, 0, 3)).send([Outgoing(1, data)])
    with pytest.raises(WireError) as caught:
        model.run(random_inputs(12, 20))
    assert caught.value.rank == 1


def test_frames_of_an_older_run_are_ignored(make_session: SessionMaker, network: Network) -> None:
    session = make_session(workers=3, settings=LocalSettings(lanes=1))
    model, x, old = session.load(network), random_inputs(12, 20), "0" * 16
    frames = build_frames(old, Slot(DATA, 0, 2), 0, 1, Body(1, b"stale"), 1_000)
    session.backend.open_channel("queue", Address(old, 0, 3)).send([Outgoing(1, data) for data in frames])
    fresh = make_session(workers=3).load(network).run(x)
    assert (model.run(x).outputs != fresh.outputs).nnz == 0


def test_ctrl_c_stops_the_workers(make_session: SessionMaker, network: Network) -> None:
    session = make_session(workers=4)
    before = threading.active_count()
    listing = session.backend.store.list

    def interrupted(prefix: str) -> list[str]:
        if prefix.endswith("/end/"):
            raise KeyboardInterrupt
        return listing(prefix)

    model = session.load(network)
    session.backend.store.list = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        model.run(random_inputs(12, 20))
    assert settled(before)


def test_every_error_is_one_line(make_session: SessionMaker, network: Network) -> None:
    session = make_session(Refuse("send", by=2, times=1), workers=4)
    with pytest.raises(FsdError) as caught:
        session.load(network).run(random_inputs(12, 20))
    assert "\n" not in str(caught.value)
