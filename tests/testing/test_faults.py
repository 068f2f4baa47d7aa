"""Each fault does what it says, no more and no less."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from fsd_local import LocalBackend, LocalSettings
from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing
from fsdcore.errors import ChannelError, FsdError, StoreError, WorkerFailedError
from fsdcore.faults import Crash, Delay, Drop, Duplicate, Fault, Refuse, Reorder
from fsdcore.testing import FaultyBackend, random_inputs, random_network
from fsdcore.testing.clock import VirtualClock
from fsdcore.testing.faults import WorkerCrash
from tests.conftest import SessionMaker

RUN = "0" * 16
FRAMES = [b"%d" % number for number in range(9)]
CHANNELS = ["queue", "object"]


def ends(*faults: Fault, settings: LocalSettings | None = None, clock: Clock = SYSTEM_CLOCK) -> tuple[Channel, Channel]:
    """The endpoints of ranks 0 and 1 over a queue with `faults`."""
    backend = FaultyBackend(LocalBackend(settings, clock), *faults)
    return backend.open_channel("queue", Address(RUN, 0, 2)), backend.open_channel("queue", Address(RUN, 1, 2))


def send(channel: Channel, frames: Sequence[bytes]) -> None:
    channel.send([Outgoing(1, data) for data in frames])


def receipts(channel: Channel, count: int) -> Iterator[list[bytes]]:
    """What each of `count` receives brings, acknowledged."""
    for _ in range(count):
        received = channel.receive(Deadline.after(0.0, SYSTEM_CLOCK))
        channel.acknowledge(received)
        yield [item.data for item in received]


def test_without_faults_nothing_changes() -> None:
    source, target = ends()
    send(source, FRAMES)
    assert list(receipts(target, 2)) == [FRAMES, []]


def test_duplicate_hands_on_a_frame_twice() -> None:
    source, target = ends(Duplicate(skip=2, times=1))
    send(source, FRAMES)
    assert list(receipts(target, 2)) == [[*FRAMES[:3], *FRAMES[2:]], []]


def test_reorder_changes_the_order_the_same_way_for_a_seed() -> None:
    orders = []
    for _ in range(2):
        source, target = ends(Reorder(seed=4))
        send(source, FRAMES)
        orders.append(list(receipts(target, 3)))
    assert orders[0] == orders[1]
    first, second, third = orders[0]
    assert (len(first), len(second), third) == (len(FRAMES) - 1, 1, [])
    assert first + second != FRAMES
    assert sorted(first + second) == FRAMES


def test_delay_hands_on_frames_some_receives_later() -> None:
    source, target = ends(Delay(receives=2, skip=2, times=3))
    send(source, FRAMES)
    late = FRAMES[2:5]
    assert list(receipts(target, 4)) == [[data for data in FRAMES if data not in late], [], late, []]


def test_a_dropped_frame_comes_again_by_redelivery_alone() -> None:
    source, target = ends(Drop(skip=2, times=3), settings=LocalSettings(visibility_timeout=0.05))
    send(source, FRAMES)
    lost = FRAMES[2:5]
    assert next(receipts(target, 1)) == [data for data in FRAMES if data not in lost]
    deadline, again = Deadline.after(20.0, SYSTEM_CLOCK), list[bytes]()
    while len(again) < len(lost) and not deadline.passed():
        received = target.receive(deadline)
        target.acknowledge(received)
        again += [item.data for item in received]
    assert sorted(again) == lost


def test_a_call_is_refused_at_its_rank_after_those_skipped_and_no_other() -> None:
    source, target = ends(Refuse("send", by=0, skip=1, times=1))
    send(target, FRAMES[:1])
    send(target, FRAMES[:1])
    send(source, FRAMES[:1])
    with pytest.raises(ChannelError, match="made to fail: send"):
        send(source, FRAMES[:1])
    send(source, FRAMES[:1])


def test_a_refusal_at_any_rank_comes_once_in_all() -> None:
    channels = ends(Refuse("receive", times=1))
    failures = 0
    for channel in (*channels, *channels):
        try:
            channel.receive(Deadline.after(0.0, SYSTEM_CLOCK))
        except ChannelError:
            failures += 1
    assert failures == 1


def test_a_refusal_comes_once_among_threads() -> None:
    source, _ = ends(Refuse("send", by=0, skip=19, times=1))

    def attempt(data: bytes) -> bool:
        try:
            send(source, [data])
        except ChannelError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        failed = list(pool.map(attempt, [b"%d" % number for number in range(80)]))
    assert failed.count(True) == 1


@pytest.mark.parametrize("verb", ["put", "get", "get_range", "list"])
def test_a_call_of_the_store_is_refused_after_those_skipped(verb: str) -> None:
    store = FaultyBackend(LocalBackend(), Refuse(verb, skip=1, times=1)).store
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: store.put("k", b"data"),
        "get": lambda: store.get("k"),
        "get_range": lambda: store.get_range("k", 0, 2),
        "list": lambda: store.list(""),
    }
    if verb != "put":
        store.put("k", b"data")
    calls[verb]()
    with pytest.raises(StoreError, match=f"made to fail: {verb}$"):
        calls[verb]()
    calls[verb]()


def test_a_crash_is_nothing_that_a_worker_could_catch_as_an_error() -> None:
    source, _ = ends(Crash("send", by=0, times=1))
    with pytest.raises(WorkerCrash):
        send(source, FRAMES)
    assert not issubclass(WorkerCrash, Exception)


def test_faults_work_together() -> None:
    source, target = ends(Duplicate(times=4), Reorder(seed=1), Delay(receives=1, skip=3, times=2))
    send(source, FRAMES)
    found = [data for receipt in receipts(target, 6) for data in receipt]
    assert sorted(set(found)) == FRAMES
    assert len(found) == len(FRAMES) + 4


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_crash_of_any_rank_reaches_the_client_as_an_error_of_the_framework(
    make_session: SessionMaker, channel: str
) -> None:
    network, x = random_network((20, 24, 24, 20)), random_inputs(12, 20)
    for rank in range(3):
        session = make_session(Crash("send", by=rank, times=1), workers=3, channel=channel)
        with pytest.raises(WorkerFailedError, match="without a word") as caught:
            session.load(network).run(x)
        assert caught.value.rank == rank


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    "fault", [Refuse("send", by=1, times=1), Crash("send", by=2, times=1)], ids=lambda fault: type(fault).__name__
)
def test_the_same_session_is_right_again_after_the_fault(
    make_session: SessionMaker, channel: str, fault: Fault
) -> None:
    network, x = random_network((20, 24, 24, 20)), random_inputs(12, 20)
    model = make_session(fault, workers=3, channel=channel).load(network)
    with pytest.raises(FsdError):
        model.run(x)
    healthy = make_session(workers=3, channel=channel).load(network).run(x)
    assert (model.run(x).outputs != healthy.outputs).nnz == 0


def test_a_delay_on_the_way_keeps_each_frame_and_not_its_sender() -> None:
    clock = VirtualClock()
    source, target = ends(Delay(seconds=0.2), clock=clock)
    send(source, FRAMES)
    assert clock.now() == 0.0
    assert target.receive(Deadline.after(0.1, clock)) == []
    received = target.receive(Deadline.after(20.0, clock))
    assert clock.now() == 0.2
    assert [item.data for item in received] == FRAMES
