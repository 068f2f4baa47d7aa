"""Pub/Sub in memory over gRPC: what the queue channel needs of ``google.pubsub.v1``, and faults.

Alone: ``python -m fsd_emulators.gcp.pubsub --port 8085``. What it lacks (filters, ordering keys, dead letters,
exactly-once, push, snapshots) it refuses with ``UNIMPLEMENTED``, never passes over.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Self

import grpc
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types

from fsd_emulators.gcp.broker import Broker, ServiceError, Subscription
from fsd_emulators.gcp.calls import Call, CallLog
from fsd_emulators.gcp.service import Service
from fsd_emulators.gcp.streams import Stream
from fsd_emulators.loops import LoopThread
from fsd_emulators.processes import HOST
from fsdcore.clock import SYSTEM_CLOCK, Clock
from fsdcore.errors import ServerError
from fsdcore.faults import Delay, Disconnect, Drop, Duplicate, Faults, InPart, Refuse

MAX_REQUEST_BYTES = 10_000_000
MAX_REQUEST_MESSAGES = 1000
MAX_PULL_BYTES = 10_000_000
_ACK_SECONDS = range(10, 601)
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# Of a request, the first of these that it has.
_RESOURCE_FIELDS = ("subscription", "topic", "name", "project")
_REFUSALS = {
    "UNAVAILABLE": "The service was unable to fulfill your request. Please try again.",
    "RESOURCE_EXHAUSTED": "Quota exceeded: throughput of the project.",
    "PERMISSION_DENIED": "User not authorized to perform this action.",
}
_REFUSED_FIELDS = (
    "filter",
    "enable_message_ordering",
    "dead_letter_policy",
    "enable_exactly_once_delivery",
    "push_config",
    "bigquery_config",
    "cloud_storage_config",
)


class PubsubServer(Service):
    """The server, on a thread of its own; as a context manager it starts and stops.

    `seed` gives the order of deliveries, negative for the order of arrival. An empty pull is answered after
    `pull_seconds`. Of its faults `Refuse` answers a gRPC status; ``Publish`` may `Duplicate` and `Delay` its messages,
    and `Disconnect` after its effect, which is answered with ``UNAVAILABLE``; ``Pull`` is answered `InPart` with one
    message or none, at once; to `Drop` an ``Acknowledge`` has its message come again at once.
    """

    def __init__(self, port: int = 0, seed: int = -1, pull_seconds: float = 20.0, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(Refuse, Disconnect, Delay, Duplicate, Drop, InPart)
        self.port = port
        self._service = _Service(Broker(seed, clock), self.log, self.faults, pull_seconds)
        self._thread = LoopThread("pubsub")
        self._server: Any = None

    @property
    def target(self) -> str:
        """Where it listens: what ``PUBSUB_EMULATOR_HOST`` is to hold."""
        return f"{HOST}:{self.port}"

    def reset(self) -> None:
        """Forget all topics, subscriptions, faults and calls."""
        self._thread.run(self._service.reset())

    def backlog(self) -> dict[str, int]:
        """How many messages each subscription keeps, held or waiting, where there are any."""
        return self._thread.run(self._service.backlog())

    def start(self) -> Self:
        """`ServerError` if the port is another's."""
        self._thread.start()
        try:
            self._thread.run(self._serve())
        except RuntimeError as error:
            self.stop()
            raise ServerError(f"Pub/Sub cannot listen at {self.target}: {error}") from error
        return self

    async def _serve(self) -> None:
        self._server = grpc.aio.server(options=[*_UNLIMITED, ("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers(self._service.handlers())
        self.port = self._server.add_insecure_port(self.target)
        await self._server.start()

    def stop(self) -> None:
        """End all calls and the thread. May be called twice, and before `start`."""
        if self._thread.runs:
            self._thread.run(self._server.stop(None))
        self._thread.stop()


def _pb(name: str) -> Any:
    """The class of a message as gRPC needs it."""
    return getattr(types, name).pb()


class _Service:
    """The calls. Each returns its answer or raises `ServiceError`; `_call` does the rest, the same for all."""

    def __init__(self, broker: Broker, log: CallLog, faults: Faults, pull_seconds: float) -> None:
        self._broker, self._log, self._faults, self._pull_seconds = broker, log, faults, pull_seconds
        self._parts = itertools.cycle((1, 0))

    async def reset(self) -> None:
        for name in list(self._broker.subscriptions):
            self._broker.delete_subscription(name)
        self._broker.topics.clear()
        self._faults.set()
        self._log.clear()

    async def backlog(self) -> dict[str, int]:
        kept = {name: len(subscription) for name, subscription in self._broker.subscriptions.items()}
        return {name: count for name, count in kept.items() if count}

    # How calls come in ---------------------------------------------------------------------------------------

    def handlers(self) -> tuple[Any, ...]:
        publisher = {
            "CreateTopic": ("Topic", self.create_topic),
            "GetTopic": ("GetTopicRequest", self.get_topic),
            "ListTopics": ("ListTopicsRequest", self.list_topics),
            "ListTopicSubscriptions": ("ListTopicSubscriptionsRequest", self.list_topic_subscriptions),
            "DeleteTopic": ("DeleteTopicRequest", self.delete_topic),
            "Publish": ("PublishRequest", self.publish),
        }
        subscriber = {
            "CreateSubscription": ("Subscription", self.create_subscription),
            "GetSubscription": ("GetSubscriptionRequest", self.get_subscription),
            "ListSubscriptions": ("ListSubscriptionsRequest", self.list_subscriptions),
            "DeleteSubscription": ("DeleteSubscriptionRequest", self.delete_subscription),
            "Pull": ("PullRequest", self.pull),
            "Acknowledge": ("AcknowledgeRequest", self.acknowledge),
            "ModifyAckDeadline": ("ModifyAckDeadlineRequest", self.modify_ack_deadline),
            "Seek": ("SeekRequest", self.seek),
        }
        streaming = grpc.stream_stream_rpc_method_handler(
            self.streaming_pull,
            request_deserializer=_pb("StreamingPullRequest").FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )
        return (
            grpc.method_handlers_generic_handler("google.pubsub.v1.Publisher", self._methods(publisher)),
            grpc.method_handlers_generic_handler(
                "google.pubsub.v1.Subscriber", {**self._methods(subscriber), "StreamingPull": streaming}
            ),
        )

    def _methods(self, calls: Mapping[str, tuple[str, Callable[[Any], Awaitable[Any]]]]) -> dict[str, Any]:
        return {
            name: grpc.unary_unary_rpc_method_handler(
                self._call(name, answer),
                request_deserializer=_pb(request).FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            for name, (request, answer) in calls.items()
        }

    def _call(self, name: str, answer: Callable[[Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            try:
                self._refuse(name, _resource(name, request))
                answered = await answer(request)
            except ServiceError as error:
                self._log.add(_logged(name, request, None, error.code))
                await context.abort(grpc.StatusCode[error.code], error.message)
            except asyncio.CancelledError:
                # The client's deadline has passed, or it has gone.
                self._log.add(_logged(name, request, None, "CANCELLED"))
                raise
            self._log.add(_logged(name, request, answered))
            return answered

        return call

    def _refuse(self, name: str, resource: str = "") -> None:
        """`ServiceError` if a call is to be refused before it has any effect."""
        if fault := self._faults.meet(Refuse, name, resource):
            status = fault.error or "UNAVAILABLE"
            raise ServiceError(status, _REFUSALS[status])

    # Topics --------------------------------------------------------------------------------------------------

    async def create_topic(self, request: Any) -> Any:
        return self._broker.create_topic(request)

    async def get_topic(self, request: Any) -> Any:
        return self._broker.topic(request.topic)

    async def list_topics(self, request: Any) -> Any:
        names = sorted(name for name in self._broker.topics if name.startswith(f"{request.project}/"))
        page, token = _page(names, request)
        return _pb("ListTopicsResponse")(topics=[self._broker.topics[name] for name in page], next_page_token=token)

    async def list_topic_subscriptions(self, request: Any) -> Any:
        self._broker.topic(request.topic)
        names = sorted(subscription.pb.name for subscription in self._broker.attached(request.topic))
        page, token = _page(names, request)
        return _pb("ListTopicSubscriptionsResponse")(subscriptions=page, next_page_token=token)

    async def delete_topic(self, request: Any) -> Any:
        self._broker.delete_topic(request.topic)
        return Empty()

    async def publish(self, request: Any) -> Any:
        self._broker.topic(request.topic)
        _check_publish(request)
        ids = [self._broker.stamp(message) for message in request.messages]
        for message in request.messages:
            for _ in range(2 if self._faults.meet(Duplicate, "Publish", request.topic) else 1):
                late = self._faults.meet(Delay, "Publish", request.topic)
                self._broker.deliver(request.topic, message, late.seconds if late else 0.0)
        if self._faults.meet(Disconnect, "Publish", request.topic):
            raise ServiceError("UNAVAILABLE", "The connection was lost.")
        return _pb("PublishResponse")(message_ids=ids)

    # Subscriptions -------------------------------------------------------------------------------------------

    async def create_subscription(self, request: Any) -> Any:
        _check_subscription(request)
        return self._broker.create_subscription(request)

    async def get_subscription(self, request: Any) -> Any:
        return self._broker.subscription(request.subscription).pb

    async def list_subscriptions(self, request: Any) -> Any:
        names = sorted(name for name in self._broker.subscriptions if name.startswith(f"{request.project}/"))
        page, token = _page(names, request)
        found = [self._broker.subscriptions[name].pb for name in page]
        return _pb("ListSubscriptionsResponse")(subscriptions=found, next_page_token=token)

    async def delete_subscription(self, request: Any) -> Any:
        self._broker.delete_subscription(request.subscription)
        return Empty()

    async def pull(self, request: Any) -> Any:
        subscription = self._broker.subscription(request.subscription)
        if request.max_messages < 1:
            raise ServiceError("INVALID_ARGUMENT", "max_messages must be at least 1.")
        wait = 0.0 if request.return_immediately else self._pull_seconds
        most = min(request.max_messages, MAX_REQUEST_MESSAGES)
        if self._faults.meet(InPart, "Pull", request.subscription):
            wait, most = 0.0, next(self._parts)
        end = asyncio.get_running_loop().time() + wait
        while not (taken := subscription.take(most, MAX_PULL_BYTES, subscription.pb.ack_deadline_seconds)):
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await subscription.wait(left)
            _check_there(subscription)
        return _pb("PullResponse")(received_messages=[_received(delivery) for delivery in taken])

    async def streaming_pull(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        name = ""
        try:
            self._refuse("StreamingPull")
            first = await anext(aiter(requests))
            name = first.subscription
            subscription = self._broker.subscription(name)
            stream = Stream(subscription, first, partial(self._acknowledge, subscription))
            async for taken in stream.deliveries(requests):
                answer = _pb("StreamingPullResponse")(received_messages=[_received(one) for one in taken])
                self._log.add(Call("StreamingPull", name, len(taken), answer.ByteSize()))
                yield answer
        except ServiceError as error:
            self._log.add(Call("StreamingPull", name, ended=error.code))
            await context.abort(grpc.StatusCode[error.code], error.message)

    async def acknowledge(self, request: Any) -> Any:
        self._acknowledge(self._broker.subscription(request.subscription), request.ack_ids)
        return Empty()

    def _acknowledge(self, subscription: Subscription, ack_ids: Iterable[str]) -> None:
        name = subscription.pb.name
        lost = {ack_id for ack_id in ack_ids if self._faults.meet(Drop, "Acknowledge", name)}
        subscription.acknowledge(ack_id for ack_id in ack_ids if ack_id not in lost)
        subscription.extend(lost, 0.0)

    async def modify_ack_deadline(self, request: Any) -> Any:
        if not 0 <= request.ack_deadline_seconds <= _ACK_SECONDS[-1]:
            raise ServiceError("INVALID_ARGUMENT", "ack_deadline_seconds must be from 0 to 600.")
        subscription = self._broker.subscription(request.subscription)
        subscription.extend(request.ack_ids, request.ack_deadline_seconds)
        return Empty()

    async def seek(self, request: Any) -> Any:
        """To a time: all that was published before it counts as acknowledged. Nothing acknowledged is kept."""
        subscription = self._broker.subscription(request.subscription)
        if not request.HasField("time"):
            raise ServiceError("UNIMPLEMENTED", "Seek takes a time here, no snapshot.")
        subscription.purge_before(request.time.ToNanoseconds())
        return _pb("SeekResponse")()


def _resource(name: str, request: Any) -> str:
    if name == "CreateSubscription":
        return str(request.name)
    fields = request.DESCRIPTOR.fields_by_name
    return str(next((getattr(request, key) for key in _RESOURCE_FIELDS if key in fields), ""))


def _logged(name: str, request: Any, answer: Any, ended: str = "OK") -> Call:
    resource = _resource(name, request)
    if name == "Pull":
        found = answer.received_messages if answer is not None else ()
        return Call(name, resource, len(found), sum(len(one.message.data) for one in found), ended)
    messages = request.messages if name == "Publish" else ()
    items = len(messages) or len(getattr(request, "ack_ids", ()))
    return Call(name, resource, items, sum(len(message.data) for message in messages), ended)


def _page(names: list[str], request: Any) -> tuple[list[str], str]:
    """One page of `names`, and the token of the next (empty if there is none)."""
    rest = [name for name in names if name > request.page_token]
    page = rest[: request.page_size or 100]
    return page, page[-1] if len(page) < len(rest) else ""


def _check_publish(request: Any) -> None:
    if not 1 <= len(request.messages) <= MAX_REQUEST_MESSAGES:
        raise ServiceError("INVALID_ARGUMENT", f"A publish takes 1 to {MAX_REQUEST_MESSAGES} messages.")
    if request.ByteSize() > MAX_REQUEST_BYTES:
        raise ServiceError("INVALID_ARGUMENT", f"Request payload size exceeds the limit: {MAX_REQUEST_BYTES} bytes.")
    for message in request.messages:
        if not message.data and not message.attributes:
            raise ServiceError("INVALID_ARGUMENT", "Some messages have neither data nor attributes.")
        if message.ordering_key:
            raise ServiceError("UNIMPLEMENTED", "There are no ordering keys here.")


def _check_subscription(request: Any) -> None:
    refused = [name for name in _REFUSED_FIELDS if getattr(request, name) != getattr(_pb("Subscription")(), name)]
    if refused:
        raise ServiceError("UNIMPLEMENTED", f"A subscription has no {refused[0]} here.")
    request.ack_deadline_seconds = request.ack_deadline_seconds or _ACK_SECONDS[0]
    if request.ack_deadline_seconds not in _ACK_SECONDS:
        raise ServiceError("INVALID_ARGUMENT", "ack_deadline_seconds must be from 10 to 600.")


def _check_there(subscription: Subscription) -> None:
    if subscription.deleted:
        raise ServiceError("NOT_FOUND", f"Resource not found (subscription={subscription.pb.name}).")


def _received(delivery: Any) -> Any:
    return _pb("ReceivedMessage")(ack_id=delivery.ack_id, message=delivery.message)


def main(arguments: list[str] | None = None) -> None:
    """Serve until a signal ends it."""
    import argparse
    import signal

    parser = argparse.ArgumentParser(description="Pub/Sub in memory.")
    parser.add_argument("--port", type=int, default=8085)
    parser.add_argument("--seed", type=int, default=-1, help="order of deliveries; negative: as they arrived")
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with suppress(KeyboardInterrupt), PubsubServer(options.port, options.seed):
        ended.wait()


if __name__ == "__main__":
    main()
