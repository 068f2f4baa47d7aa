"""The queue channel on Pub/Sub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_gcp.calls.clients import Clients
from fsd_gcp.deployment import Deployment
from fsd_gcp.queue import PubsubChannel
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing, Slot
from fsdcore.contracts.compute import new_run_id
from fsdcore.errors import DeploymentMissingError
from fsdcore.messages.frames import DATA, Body, build_frames
from fsdcore.testing import ChannelTests
from fsdcore.testing.channels import Opener


@pytest.fixture
def opener(queue_clients: Clients, queues: Deployment) -> Iterator[Opener]:
    opened: list[Channel] = []

    def open_channel(address: Address) -> Channel:
        opened.append(PubsubChannel(queue_clients.publisher, queue_clients.subscriber, queues, address))
        return opened[-1]

    yield open_channel
    for channel in opened:
        channel.close()


class TestPubsubChannel(ChannelTests):
    @pytest.fixture
    def opener(self, opener: Opener) -> Opener:
        return opener


def _frame(run: str) -> bytes:
    (frame,) = build_frames(run, Slot(DATA, 0, 1), 0, 1, Body(1, b"data"), 1 << 20)
    return frame


def test_each_verb_is_one_request(opener: Opener, pubsub: PubsubServer) -> None:
    run = new_run_id(SYSTEM_CLOCK)
    source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
    pubsub.log.clear()
    source.send([Outgoing(1, _frame(run)), Outgoing(1, _frame(run))])
    received = target.receive(Deadline.after(10.0, SYSTEM_CLOCK))
    target.acknowledge(received)
    target.close()
    counts = {verb: pubsub.log.count(verb) for verb in ("Publish", "Pull", "Acknowledge")}
    assert counts == {"Publish": 1, "Pull": 1, "Acknowledge": 1}
    assert len(received) == 2


def test_a_pull_outlives_the_receive_that_began_it(opener: Opener, pubsub: PubsubServer) -> None:
    run = new_run_id(SYSTEM_CLOCK)
    source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
    for _ in range(3):
        assert target.receive(Deadline.after(0.05, SYSTEM_CLOCK)) == []
    source.send([Outgoing(1, _frame(run))])
    assert [item.data for item in target.receive(Deadline.after(5.0, SYSTEM_CLOCK))] == [_frame(run)]
    assert pubsub.log.count("Pull") == 1


def test_what_is_released_comes_again_at_once(opener: Opener) -> None:
    run = new_run_id(SYSTEM_CLOCK)
    source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
    source.send([Outgoing(1, _frame(run))])
    target.release(target.receive(Deadline.after(5.0, SYSTEM_CLOCK)))
    assert [item.data for item in target.receive(Deadline.after(5.0, SYSTEM_CLOCK))] == [_frame(run)]


def test_purge_forgets_what_waits(opener: Opener) -> None:
    run = new_run_id(SYSTEM_CLOCK)
    source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
    source.send([Outgoing(1, _frame(run))])
    target.purge()
    assert target.receive(Deadline.after(0.3, SYSTEM_CLOCK)) == []


def test_a_rank_beyond_the_deployment_has_no_topic(opener: Opener) -> None:
    run = new_run_id(SYSTEM_CLOCK)
    source, lost = opener(Address(run, 0, 9)), opener(Address(run, 8, 9))
    with pytest.raises(DeploymentMissingError, match="fsd deploy gcp"):
        source.send([Outgoing(8, _frame(run))])
    with pytest.raises(DeploymentMissingError, match="fsd deploy gcp"):
        lost.receive(Deadline.after(5.0, SYSTEM_CLOCK))
