"""Topics and subscriptions of a deployment: one of each for every rank of every lane.

A subscription has no filter: Pub/Sub bills what a filter drops as if it had been delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from google.api_core import exceptions
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.types import ExpirationPolicy, Subscription, Topic

from backends.gcp.clients import Clients
from backends.gcp.deployment import LABEL, Deployment

__all__ = ["find_queues", "make_queues", "remove_queues", "subscription_of"]

_IN_FLIGHT = 16
_TIMEOUT = 60.0
# What nobody pulls is forgotten after this: longer than any function lives.
_RETENTION_SECONDS = 2 * 3_600

_Item = TypeVar("_Item")


def subscription_of(deployment: Deployment, lane: int, rank: int) -> Subscription:
    """The subscription of a rank, as it is made."""
    return Subscription(
        name=deployment.subscription(lane, rank),
        topic=deployment.topic(lane, rank),
        ack_deadline_seconds=deployment.ack_deadline,
        message_retention_duration=Duration(seconds=_RETENTION_SECONDS),
        # Without a policy of its own, a subscription that is idle for 31 days is removed.
        expiration_policy=ExpirationPolicy(),
        labels=deployment.labels,
    )


def _for_each(call: Callable[[_Item], Any], items: Iterable[_Item], told: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        for number, _ in enumerate(pool.map(call, items), start=1):
            told(number)


def make_queues(clients: Clients, deployment: Deployment, told: Callable[[int], None] = lambda _: None) -> None:
    """Make what is missing, replace what differs; `told` hears how many ranks of all lanes have theirs."""
    publisher, subscriber = clients.publisher, clients.subscriber

    def make(endpoint: tuple[int, int]) -> None:
        topic = Topic(name=deployment.topic(*endpoint), labels=deployment.labels)
        _unless_there(lambda: publisher.create_topic(request=topic, timeout=_TIMEOUT))
        _subscribe(subscriber, subscription_of(deployment, *endpoint))

    _for_each(make, deployment.endpoints(), told)


def _subscribe(subscriber: SubscriberClient, wanted: Subscription) -> None:
    """Make a subscription; one of another topic, such as one that is gone, or with another deadline is replaced."""
    try:
        subscriber.create_subscription(request=wanted, timeout=_TIMEOUT)
    except exceptions.AlreadyExists:
        found = subscriber.get_subscription(request={"subscription": wanted.name}, timeout=_TIMEOUT)
        if (found.topic, found.ack_deadline_seconds) != (wanted.topic, wanted.ack_deadline_seconds):
            subscriber.delete_subscription(request={"subscription": wanted.name}, timeout=_TIMEOUT)
            subscriber.create_subscription(request=wanted, timeout=_TIMEOUT)


def _unless_there(make: Callable[[], Any]) -> None:
    try:
        make()
    except exceptions.AlreadyExists:
        return


def find_queues(clients: Clients, project: str, name: str) -> tuple[list[str], list[str]]:
    """Names of the topics and of the subscriptions that have the label of deployment `name`, sorted."""
    parent = f"projects/{project}"
    topics = clients.publisher.list_topics(request={"project": parent, "page_size": 1_000}, timeout=_TIMEOUT)
    found = clients.subscriber.list_subscriptions(request={"project": parent, "page_size": 1_000}, timeout=_TIMEOUT)
    return (
        sorted(topic.name for topic in topics if topic.labels.get(LABEL) == name),
        sorted(item.name for item in found if item.labels.get(LABEL) == name),
    )


def remove_queues(clients: Clients, topics: list[str], subscriptions: list[str]) -> None:
    """Remove what is still there."""
    publisher, subscriber = clients.publisher, clients.subscriber

    def remove(name: str) -> None:
        try:
            if "/topics/" in name:
                publisher.delete_topic(request={"topic": name}, timeout=_TIMEOUT)
            else:
                subscriber.delete_subscription(request={"subscription": name}, timeout=_TIMEOUT)
        except exceptions.NotFound:
            return

    _for_each(remove, [*subscriptions, *topics], lambda _: None)
