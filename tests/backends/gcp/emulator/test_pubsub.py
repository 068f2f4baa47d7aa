"""What our Pub/Sub server does beyond the suite: faults, the log of calls, refusals, a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import (
    DeadlineExceeded,
    GoogleAPICallError,
    InvalidArgument,
    MethodNotImplemented,
    ResourceExhausted,
    ServiceUnavailable,
)

from fsd_emulators.gcp.calls import Call
from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_emulators.processes import HOST, ServerProcess, free_port, tcp_ready
from fsdcore.errors import ServerError
from fsdcore.faults import Delay, Disconnect, Drop, Duplicate, Fault, InPart, Refuse
from tests.backends.gcp.emulator.pubsub_clients import Pubsub

DATA = [f"{number:03d}".encode() for number in range(100)]


@pytest.fixture
def clients(pubsub: PubsubServer) -> Iterator[Pubsub]:
    made = Pubsub(pubsub.target)
    yield made
    made.close()


def test_doubles_come_as_deliveries_of_the_same_message(pubsub: PubsubServer, clients: Pubsub) -> None:
    pubsub.faults.set(Duplicate("Publish"))
    (message_id,) = clients.publish(b"x")
    received = [*clients.pull(1), *clients.pull(1)]
    assert [item.message.message_id for item in received] == [message_id] * 2
    assert len({item.ack_id for item in received}) == 2


def test_delayed_messages_come_all_the_same(pubsub: PubsubServer, clients: Pubsub) -> None:
    pubsub.faults.set(Delay("Publish", share=0.5, seconds=0.05))
    clients.publish(*DATA)
    assert len(clients.pull(100)) < 100
    pubsub.faults.set()
    clients.pull()


def test_an_acknowledgement_may_be_lost_and_the_message_comes_again(pubsub: PubsubServer, clients: Pubsub) -> None:
    pubsub.faults.set(Drop("Acknowledge"))
    clients.publish(b"x")
    held = clients.pull()
    clients.acknowledge(held)
    assert pubsub.backlog() == {clients.subscription: 1}
    assert clients.pull_data(1) == [b"x"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Refuse(), ServiceUnavailable), (Refuse(error="RESOURCE_EXHAUSTED"), ResourceExhausted)],
)
def test_a_refused_publish_has_no_effect(
    pubsub: PubsubServer, clients: Pubsub, fault: Fault, error: type[GoogleAPICallError]
) -> None:
    pubsub.faults.set(fault)
    with pytest.raises(error):
        clients.publish(b"x")
    with pytest.raises(error):
        clients.pull()
    assert pubsub.backlog() == {}


def test_pulls_in_part_bring_one_message_or_none_at_once(pubsub: PubsubServer, clients: Pubsub) -> None:
    clients.publish(*DATA[:3])
    pubsub.faults.set(InPart("Pull"))
    assert sorted(len(clients.pull()) for _ in range(4)) == [0, 0, 1, 1]


def test_a_publish_whose_answer_is_lost_has_taken_effect(pubsub: PubsubServer, clients: Pubsub) -> None:
    pubsub.faults.set(Disconnect("Publish", when="after"))
    with pytest.raises(ServiceUnavailable):
        clients.publish(b"x")
    assert pubsub.backlog() == {clients.subscription: 1}


def test_faults_of_one_method_leave_the_others(pubsub: PubsubServer, clients: Pubsub) -> None:
    pubsub.faults.set(Refuse("Acknowledge"))
    clients.publish(b"x")
    held = clients.pull()
    with pytest.raises(ServiceUnavailable):
        clients.subscriber.acknowledge(
            subscription=clients.subscription, ack_ids=[held[0].ack_id], retry=None, timeout=20.0
        )


def test_the_same_seed_makes_the_same_faults(pubsub: PubsubServer, clients: Pubsub) -> None:
    def refused() -> list[bool]:
        pubsub.faults.set(Refuse(share=0.5, seed=7))
        return [_fails(lambda: clients.publish(b"x")) for _ in range(20)]

    first = refused()
    assert first == refused()
    assert 0 < sum(first) < 20


def _fails(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ServiceUnavailable:
        return True
    return False


def test_retries_of_the_client_bring_all_through(pubsub: PubsubServer, clients: Pubsub) -> None:
    pubsub.faults.set(
        Refuse(share=0.2, seed=1),
        Refuse(share=0.1, seed=1, error="RESOURCE_EXHAUSTED"),
        Disconnect("Publish", share=0.1, seed=1, when="after"),
        Duplicate("Publish", share=0.1, seed=1),
    )
    for data in DATA[:20]:
        clients.publisher.publish(topic=clients.topic, messages=[{"data": data}], timeout=60.0)
    pubsub.faults.set()
    seen: set[bytes] = set()
    while seen != set(DATA[:20]):
        received = clients.pull()
        seen |= {item.message.data for item in received}
        clients.acknowledge(received)
    assert pubsub.log.count("Publish", "UNAVAILABLE") > 0


def test_each_call_is_in_the_log_with_what_it_carried(pubsub: PubsubServer, clients: Pubsub) -> None:
    pubsub.log.clear()
    clients.publish(b"abc", b"de")
    clients.acknowledge(held := clients.pull(2))
    with pytest.raises(InvalidArgument):
        clients.publish()
    assert len(held) == 2
    assert list(pubsub.log) == [
        Call("Publish", clients.topic, 2, 5),
        Call("Pull", clients.subscription, 2, 5),
        Call("Acknowledge", clients.subscription, 2),
        Call("Publish", clients.topic, 0, 0, "INVALID_ARGUMENT"),
    ]


@pytest.mark.parametrize(
    "field",
    [
        {"filter": 'attributes.target = "3"'},
        {"enable_message_ordering": True},
        {"enable_exactly_once_delivery": True},
        {"push_config": {"push_endpoint": "http://127.0.0.1:1"}},
        {"dead_letter_policy": {"max_delivery_attempts": 5}},
    ],
)
def test_what_it_lacks_is_refused(clients: Pubsub, field: dict[str, Any]) -> None:
    with pytest.raises(MethodNotImplemented, match=next(iter(field))):
        clients.subscribe(f"{clients.subscription}-x", **field)


def test_ordering_keys_are_refused(clients: Pubsub) -> None:
    with pytest.raises(MethodNotImplemented):
        clients.publisher.publish(topic=clients.topic, messages=[{"data": b"x", "ordering_key": "k"}])


def test_an_empty_pull_ends_without_an_error(pubsub: PubsubServer) -> None:
    with PubsubServer(pull_seconds=0.05) as server:
        clients = Pubsub(server.target)
        assert clients.pull() == []
        clients.close()


def test_a_pull_that_its_caller_gave_up_is_in_the_log(pubsub: PubsubServer, clients: Pubsub) -> None:
    with pytest.raises(DeadlineExceeded):
        clients.pull(timeout=0.05)
    clients.publish(b"x")
    assert clients.pull_data(1) == [b"x"]
    assert pubsub.log.count("Pull", "CANCELLED") == 1


def test_a_port_that_is_anothers_is_one_line(pubsub: PubsubServer) -> None:
    with pytest.raises(ServerError, match=f"cannot listen at {pubsub.target}"):
        PubsubServer(pubsub.port).start()


def test_a_reset_leaves_nothing(pubsub: PubsubServer, clients: Pubsub) -> None:
    clients.publish(b"x")
    pubsub.faults.set(Refuse())
    pubsub.reset()
    assert (pubsub.backlog(), list(pubsub.log), pubsub.faults.meet(Refuse, "Publish")) == ({}, [], None)


def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "fsd_emulators.gcp.pubsub", "--port", str(port)]
    with ServerProcess("pubsub", command, ready=tcp_ready(port), log=tmp_path / "log") as server:
        clients = Pubsub(f"{HOST}:{port}")
        clients.publish(b"x")
        assert clients.pull_data(1) == [b"x"]
        clients.close()
        assert "Traceback" not in server.log_tail()
