"""The channel on Pub/Sub by streaming pull: the same promises, over a stream that may end at any time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_gcp.calls.clients import Clients
from fsd_gcp.deploy.resources import remove_queues
from fsd_gcp.deployment import Deployment
from fsd_gcp.queue import MOST_MESSAGES, PubsubChannel, StreamingChannel
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing, Slot
from fsdcore.contracts.compute import new_run_id
from fsdcore.errors import AccessDeniedError, DeploymentMissingError
from fsdcore.faults import Refuse
from fsdcore.messages.frames import DATA, Body, build_frames
from fsdcore.testing import ChannelTests
from fsdcore.testing.channels import Opener


@pytest.fixture
def opener(queue_clients: Clients, queues: Deployment) -> Iterator[Opener]:
    opened: list[Channel] = []

    def open_channel(address: Address) -> Channel:
        opened.append(StreamingChannel(queue_clients.publisher, queue_clients.subscriber, queues, address))
        return opened[-1]

    yield open_channel
    for channel in opened:
        channel.close()


class TestStreamingChannel(ChannelTests):
    @pytest.fixture
    def opener(self, opener: Opener) -> Opener:
        return opener


def frame(run: str, layer: int = 1) -> bytes:
    (made,) = build_frames(run, Slot(DATA, 0, layer), 0, 1, Body(1, b"data"), 1 << 20)
    return made


def received(channel: Channel, count: int) -> list[bytes]:
    """So many frames, acknowledged."""
    found: list[bytes] = []
    deadline = Deadline.after(20.0, SYSTEM_CLOCK)
    while len(found) < count and not deadline.passed():
        came = channel.receive(deadline)
        channel.acknowledge(came)
        found += [item.data for item in came]
    return found


def test_one_stream_brings_all(opener: Opener, pubsub: PubsubServer) -> None:
    run = new_run_id(SYSTEM_CLOCK)
    source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
    for layer in range(1, 6):
        source.send([Outgoing(1, frame(run, layer))])
        assert received(target, 1) == [frame(run, layer)]
    # Which waits until the acknowledgements are taken.
    target.close()
    assert pubsub.log.count("Pull") == 0
    assert pubsub.backlog() == {}


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_stream_that_is_refused_is_opened_again(opener: Opener, pubsub: PubsubServer, share: float) -> None:
    run = new_run_id(SYSTEM_CLOCK)
    source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
    pubsub.faults.set(Refuse("StreamingPull", share=share, seed=1))
    source.send([Outgoing(1, frame(run))])
    assert received(target, 1) == [frame(run)]


def test_what_nobody_took_is_given_back_at_the_end(opener: Opener, queue_clients: Clients, queues: Deployment) -> None:
    run = new_run_id(SYSTEM_CLOCK)
    source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
    source.send([Outgoing(1, frame(run))])
    assert len(target.receive(Deadline.after(10.0, SYSTEM_CLOCK))) == 1
    source.send([Outgoing(1, frame(run, 2))])
    # Not before the stream has it.
    waiting = Deadline.after(10.0, SYSTEM_CLOCK)
    while target._answers.empty() and not waiting.passed():  # type: ignore[attr-defined]
        waiting.clock.sleep(0.01)
    target.close()
    other = PubsubChannel(queue_clients.publisher, queue_clients.subscriber, queues, Address(run, 1, 2))
    # Long before its deadline of 10 s would bring it back.
    assert [item.data for item in other.receive(Deadline.after(5.0, SYSTEM_CLOCK))] == [frame(run, 2)]
    other.close()


def test_no_more_is_held_here_than_a_pull_brings(opener: Opener, pubsub: PubsubServer) -> None:
    run = new_run_id(SYSTEM_CLOCK)
    source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
    several = [Outgoing(1, frame(run, layer)) for layer in range(1, MOST_MESSAGES // 2)]
    for _ in range(4):
        source.send(several)
    first = target.receive(Deadline.after(10.0, SYSTEM_CLOCK))
    deadline = Deadline.after(2.0, SYSTEM_CLOCK)
    while not deadline.passed():
        first += target.receive(deadline)
    assert 0 < len(first) <= MOST_MESSAGES
    target.acknowledge(first)
    assert len(received(target, 4 * len(several) - len(first))) == 4 * len(several) - len(first)


def test_a_subscription_that_is_gone_is_told(opener: Opener, queue_clients: Clients, queues: Deployment) -> None:
    target = opener(Address(new_run_id(SYSTEM_CLOCK), 1, 2))
    remove_queues(queue_clients, [], [queues.subscription(0, 1)])
    with pytest.raises(DeploymentMissingError, match="run: fsd deploy gcp"):
        target.receive(Deadline.after(10.0, SYSTEM_CLOCK))


def test_who_may_not_pull_is_told(opener: Opener, pubsub: PubsubServer) -> None:
    pubsub.faults.set(Refuse("StreamingPull", error="PERMISSION_DENIED"))
    with pytest.raises(AccessDeniedError, match="no permission"):
        opener(Address(new_run_id(SYSTEM_CLOCK), 1, 2)).receive(Deadline.after(10.0, SYSTEM_CLOCK))


def test_streams_leave_no_threads(opener: Opener) -> None:
    before = threading.active_count()
    for _ in range(5):
        channel = opener(Address(new_run_id(SYSTEM_CLOCK), 1, 2))
        assert channel.receive(Deadline.after(0.1, SYSTEM_CLOCK)) == []
        channel.close()
    deadline = Deadline.after(10.0, SYSTEM_CLOCK)
    while threading.active_count() > before and not deadline.passed():
        deadline.clock.sleep(0.05)
    assert threading.active_count() <= before
