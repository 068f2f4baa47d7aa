"""Topics and subscriptions in memory, by a clock that stands still until it is moved."""

from __future__ import annotations

import pytest
from google.pubsub_v1 import types
from hypothesis import given
from hypothesis import strategies as st

from fsd_emulators.gcp.broker import Broker, Delivery, Outstanding, ServiceError, Subscription
from fsdcore.testing.clock import VirtualClock

TOPIC = "projects/p/topics/t"
MEGABYTE = 1_000_000


class Service:
    """A topic with one subscription."""

    def __init__(self, seed: int = -1) -> None:
        self.clock = VirtualClock()
        self.broker = Broker(seed, self.clock)
        self.broker.create_topic(types.Topic.pb(types.Topic(name=TOPIC)))
        self.subscription = self.subscribe("s")

    def subscribe(self, name: str) -> Subscription:
        pb = types.Subscription.pb(types.Subscription(name=name, topic=TOPIC, ack_deadline_seconds=10))
        self.broker.create_subscription(pb)
        return self.broker.subscription(name)

    def publish(self, *data: bytes, delay: float = 0.0) -> None:
        for item in data:
            message = types.PubsubMessage.pb(types.PubsubMessage(data=item))
            self.broker.stamp(message)
            self.broker.deliver(TOPIC, message, delay)

    def take(self, most: int = 1000, most_bytes: int = 10 * MEGABYTE) -> list[Delivery]:
        return self.subscription.take(most, most_bytes, 10.0)

    def take_data(self) -> list[bytes]:
        return [delivery.message.data for delivery in self.take()]


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.ack_id for delivery in deliveries]


def test_a_message_is_held_for_its_deadline_to_the_second() -> None:
    service = Service()
    service.publish(b"x")
    assert service.take_data() == [b"x"]
    service.clock.sleep(9.9)
    assert service.take_data() == []
    service.clock.sleep(0.1)
    assert service.take_data() == [b"x"]


def test_attempts_are_counted() -> None:
    service = Service()
    service.publish(b"x")
    attempts = []
    for _ in range(3):
        attempts += [delivery.attempts for delivery in service.take()]
        service.clock.sleep(10.0)
    assert attempts == [1, 2, 3]


def test_an_extension_holds_it_longer() -> None:
    service = Service()
    service.publish(b"x")
    held = service.take()
    service.clock.sleep(9.0)
    service.subscription.extend(ids(held), 30.0)
    service.clock.sleep(29.9)
    assert service.take_data() == []
    service.clock.sleep(0.1)
    assert service.take_data() == [b"x"]


def test_a_late_acknowledgement_is_passed_over() -> None:
    service = Service()
    service.publish(b"x")
    held = service.take()
    service.clock.sleep(10.0)
    service.subscription.acknowledge(ids(held))
    assert service.take_data() == [b"x"]


def test_a_late_extension_is_passed_over() -> None:
    service = Service()
    service.publish(b"x")
    held = service.take()
    service.clock.sleep(10.0)
    service.subscription.extend(ids(held), 600.0)
    assert service.take_data() == [b"x"]


def test_a_delayed_message_comes_when_its_time_has_come() -> None:
    service = Service()
    service.publish(b"late", delay=5.0)
    service.publish(b"x")
    assert service.take_data() == [b"x"]
    service.clock.sleep(5.0)
    assert service.take_data() == [b"late"]


def test_bytes_end_a_take_but_never_before_the_first() -> None:
    service = Service()
    service.publish(*[bytes(4 * MEGABYTE)] * 3)
    assert [len(service.take(most_bytes=MEGABYTE)), len(service.take())] == [1, 2]


def test_what_a_receiver_holds_is_counted_until_it_lets_go() -> None:
    service = Service()
    service.publish(b"a", b"b", b"c")
    holder = Outstanding()
    taken = service.subscription.take(3, MEGABYTE, 10.0, holder)
    assert (holder.messages, holder.size) == (3, sum(delivery.size for delivery in taken))
    service.subscription.acknowledge(ids(taken)[:1])
    service.subscription.extend(ids(taken)[1:2], 0)
    assert holder.messages == 1
    service.clock.sleep(10.0)
    service.subscription.bring_back()
    assert (holder.messages, holder.size) == (0, 0)


def test_the_next_thing_to_come_is_known() -> None:
    service = Service()
    service.publish(b"x")
    service.take()
    service.publish(b"late", delay=4.0)
    service.clock.sleep(1.0)
    assert service.subscription.bring_back() == pytest.approx(3.0)


def test_a_purge_before_a_time_leaves_what_is_younger() -> None:
    service = Service()
    service.publish(b"held", b"old")
    held = service.take(1)
    service.publish(b"late", delay=1.0)
    service.clock.sleep(2.0)
    service.publish(b"young")
    service.subscription.purge_before(int(1e9))
    service.subscription.extend(ids(held), 0)
    assert len(service.subscription) == 1
    assert service.take_data() == [b"young"]


def test_a_seed_gives_an_order_of_its_own_the_same_each_time() -> None:
    data = [bytes([number]) for number in range(20)]
    orders = []
    for seed in (1, 1, 2):
        service = Service(seed)
        service.publish(*data)
        orders.append(service.take_data())
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in [*orders, data]}) == 3
    assert all(sorted(order) == data for order in orders)


def test_a_deleted_topic_leaves_its_subscriptions() -> None:
    service = Service()
    service.publish(b"x")
    service.broker.delete_topic(TOPIC)
    service.publish(b"y")
    assert (service.subscription.pb.topic, service.take_data()) == ("_deleted-topic_", [b"x"])


@pytest.mark.parametrize("call", ["topic", "delete_topic", "subscription", "delete_subscription"])
def test_what_is_not_there_is_not_found(call: str) -> None:
    with pytest.raises(ServiceError, match="none") as caught:
        getattr(Service().broker, call)("none")
    assert caught.value.code == "NOT_FOUND"


STEPS = st.tuples(st.sampled_from(["publish", "take", "ack", "nack", "wait"]), st.integers(0, 12))


@given(st.lists(STEPS, max_size=60), st.booleans())
def test_no_message_is_lost_before_it_is_acknowledged(steps: list[tuple[str, int]], shuffled: bool) -> None:
    service = Service(3 if shuffled else -1)
    published: set[bytes] = set()
    acknowledged: set[bytes] = set()
    held: dict[str, bytes] = {}
    for verb, number in steps:
        if verb == "publish":
            data = len(published).to_bytes(2, "big")
            service.publish(data, delay=float(number % 3))
            published.add(data)
        elif verb == "take":
            held |= {delivery.ack_id: delivery.message.data for delivery in service.take(number)}
        elif verb == "wait":
            service.clock.sleep(float(number))
        elif held:
            ack_id, data = held.popitem()
            before = len(service.subscription)
            if verb == "ack":
                service.subscription.acknowledge([ack_id])
            else:
                service.subscription.extend([ack_id], 0)
            acknowledged |= {data} if len(service.subscription) < before else set()
    service.clock.sleep(20.0)
    assert set(service.take_data()) == published - acknowledged
