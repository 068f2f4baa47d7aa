"""Google's own clients, led to a server of this machine, and a topic with its subscriptions to use them on."""

from __future__ import annotations

import queue
import uuid
from collections.abc import Iterable
from typing import Any

import grpc
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

PROJECT = "projects/conformance"
# Without it a client takes no more than 4 MB in one answer.
_OPTIONS = [("grpc.max_receive_message_length", -1)]


class Pubsub:
    """A topic and one subscription of names of their own, and what a test does with them."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        # Not typed: they take a dictionary wherever their types say a message.
        self.publisher: Any = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self.subscriber: Any = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))
        name = f"t-{uuid.uuid4().hex[:12]}"
        self.topic, self.subscription = f"{PROJECT}/topics/{name}", f"{PROJECT}/subscriptions/{name}"
        self.publisher.create_topic(name=self.topic)
        self.subscribe(self.subscription)

    def subscribe(self, name: str, **fields: Any) -> Any:
        request = {"name": name, "topic": self.topic, "ack_deadline_seconds": 10, **fields}
        return self.subscriber.create_subscription(request=request)

    def publish(self, *data: bytes) -> list[str]:
        """In one call; a retry would hide what the server says."""
        messages = [{"data": item} for item in data]
        return list(self.publisher.publish(topic=self.topic, messages=messages, retry=None, timeout=20.0).message_ids)

    def pull(self, most: int = 100, subscription: str = "", timeout: float = 20.0) -> list[Any]:
        """What one call gives: at least one message, or `DeadlineExceeded`."""
        name = subscription or self.subscription
        answer = self.subscriber.pull(subscription=name, max_messages=most, retry=None, timeout=timeout)
        return list(answer.received_messages)

    def pull_data(self, count: int, subscription: str = "") -> list[bytes]:
        """The data of `count` deliveries, acknowledged, sorted."""
        data: list[bytes] = []
        while len(data) < count:
            received = self.pull(count - len(data), subscription)
            self.acknowledge(received, subscription)
            data += [item.message.data for item in received]
        return sorted(data)

    def acknowledge(self, received: Iterable[Any], subscription: str = "") -> None:
        name, ids = subscription or self.subscription, [item.ack_id for item in received]
        if ids:
            self.subscriber.acknowledge(subscription=name, ack_ids=ids)

    def extend(self, received: Iterable[Any], seconds: int) -> None:
        self.subscriber.modify_ack_deadline(
            subscription=self.subscription,
            ack_ids=[item.ack_id for item in received],
            ack_deadline_seconds=seconds,
        )

    def stream(self, **fields: Any) -> Stream:
        """A streaming pull."""
        first = {"subscription": self.subscription, "stream_ack_deadline_seconds": 60, **fields}
        return Stream(self.subscriber, first)

    def is_empty(self) -> bool:
        """Whether a look that does not wait finds nothing."""
        request = {"subscription": self.subscription, "max_messages": 10, "return_immediately": True}
        return not self.subscriber.pull(request=request, retry=None, timeout=20.0).received_messages

    def close(self) -> None:
        self._channel.close()


class Stream:
    """An open streaming pull: requests go to the server as they are put, until `close`."""

    def __init__(self, subscriber: Any, first: dict[str, Any]) -> None:
        self._requests: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._requests.put(first)
        self._answers = subscriber.streaming_pull(requests=iter(self._requests.get, None), timeout=60.0)

    def receive(self, count: int) -> list[Any]:
        """At least `count` deliveries."""
        received: list[Any] = []
        while len(received) < count:
            received += next(self._answers).received_messages
        return received

    def acknowledge(self, received: Iterable[Any]) -> None:
        self._requests.put({"ack_ids": [item.ack_id for item in received]})

    def close(self) -> list[Any]:
        """Say that no request follows; returns what the server sends until its end."""
        self._requests.put(None)
        return [item for answer in self._answers for item in answer.received_messages]

    def cancel(self) -> None:
        """End it without waiting for the server."""
        self._requests.put(None)
        self._answers.cancel()
