"""The queues of the local backend, by a clock that is moved by hand."""

from __future__ import annotations

import pytest

from fsd_local import LocalSettings
from fsd_local.queue import LocalQueueChannel, QueueService
from fsdcore.clock import Deadline
from fsdcore.contracts.channel import Address, Outgoing
from fsdcore.errors import FrameTooLargeError
from fsdcore.testing.clock import VirtualClock

RUN = "0" * 16
FRAMES = [b"%02d" % number for number in range(12)]


class Deployment:
    """A service on a clock that stands still."""

    def __init__(self, seed: int = -1) -> None:
        self.clock = VirtualClock()
        self.service = QueueService(LocalSettings().limits(), 30.0, self.clock, seed)

    def end(self, rank: int, lane: int = 0, run: str = RUN) -> LocalQueueChannel:
        return LocalQueueChannel(self.service, Address(run, rank, 2, lane))

    def take(self, rank: int = 1, lane: int = 0) -> list[bytes]:
        """What is there, left unacknowledged."""
        return [item.data for item in self.end(rank, lane).receive(Deadline.after(0.0, self.clock))]

    def receive_meanwhile(self) -> list[tuple[float, list[bytes]]]:
        """Wait for a minute in a thread; when the wait has ended, and what came."""
        ended: list[tuple[float, list[bytes]]] = []

        def receive() -> None:
            received = self.end(1).receive(Deadline.after(60.0, self.clock))
            ended.append((self.clock.now(), [item.data for item in received]))

        self.clock.start(receive, "receives")
        return ended


def outgoing(*frames: bytes, target: int = 1) -> list[Outgoing]:
    return [Outgoing(target, data) for data in frames]


def test_a_frame_is_hidden_for_its_timeout_to_the_second() -> None:
    deployment = Deployment()
    deployment.end(0).send(outgoing(b"frame"))
    assert deployment.take() == [b"frame"]
    deployment.clock.sleep(29.9)
    assert deployment.take() == []
    deployment.clock.sleep(0.1)
    assert deployment.take() == [b"frame"]


def test_a_late_acknowledgement_is_of_its_own_delivery_only() -> None:
    deployment = Deployment()
    deployment.end(0).send(outgoing(b"frame"))
    first = deployment.end(1).receive(Deadline.after(0.0, deployment.clock))
    deployment.clock.sleep(30.0)
    assert deployment.take() == [b"frame"]
    deployment.end(1).acknowledge(first)
    deployment.clock.sleep(30.0)
    assert deployment.take() == [b"frame"]


def test_one_receive_brings_no_more_than_its_limit() -> None:
    deployment = Deployment()
    deployment.end(0).send(outgoing(*FRAMES[:10]))
    deployment.end(0).send(outgoing(*FRAMES[10:]))
    assert [deployment.take(), deployment.take(), deployment.take()] == [FRAMES[:10], FRAMES[10:], []]


def test_a_seed_gives_an_order_of_its_own_the_same_each_time() -> None:
    orders = []
    for seed in (1, 1, 2):
        deployment = Deployment(seed)
        deployment.end(0).send(outgoing(*FRAMES[:10]))
        orders.append(deployment.take())
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in [*orders, FRAMES[:10]]}) == 3
    assert all(sorted(order) == FRAMES[:10] for order in orders)


def test_frames_of_a_run_that_is_over_wait_for_the_next_on_the_lane() -> None:
    deployment = Deployment()
    deployment.end(0, run="1" * 16).send(outgoing(b"old"))
    assert deployment.take(lane=1) == []
    assert deployment.take(lane=0) == [b"old"]


def test_purge_forgets_what_waits_and_what_is_hidden() -> None:
    deployment = Deployment()
    deployment.end(0).send(outgoing(*FRAMES[:10]))
    deployment.take()
    deployment.end(0).send(outgoing(*FRAMES[10:]))
    assert deployment.end(1).purge() == 12
    deployment.clock.sleep(60.0)
    assert deployment.take() == []


def test_a_waiting_receive_is_woken_by_a_send() -> None:
    deployment = Deployment()
    ended = deployment.receive_meanwhile()
    deployment.clock.sleep(10.0)
    deployment.end(0).send(outgoing(b"frame"))
    deployment.clock.sleep(100.0)
    assert ended == [(10.0, [b"frame"])]


def test_a_waiting_receive_ends_when_the_clock_passes_its_deadline() -> None:
    deployment = Deployment()
    ended = deployment.receive_meanwhile()
    deployment.clock.sleep(100.0)
    assert ended == [(60.0, [])]


def test_a_breach_by_one_frame_of_many_sends_none_of_them() -> None:
    deployment = Deployment()
    largest = LocalSettings().max_frame_bytes
    with pytest.raises(FrameTooLargeError):
        deployment.end(0).send([*outgoing(b"small"), *outgoing(bytes(largest + 1), target=0)])
    assert (deployment.take(0), deployment.take(1)) == ([], [])
