"""The channels over SQS: ``queue`` publishes through SNS, ``sqs`` sends straight to the queue of the target.

Each (lane, rank) has one queue, from which both receive. A topic carries messages for all ranks, and the filter of
each queue's subscription lets through its own; so one publish holds frames for up to ten ranks (paper: queue channel).
"""

from __future__ import annotations

import base64
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from fsd_aws.clients import Clients
from fsd_aws.deployment import Deployment
from fsd_aws.errors import Entries, is_throttled, translated, until_none_fails
from fsd_aws.settings import AwsSettings
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.errors import ChannelError
from fsdcore.messages.packing import check_publish

TARGET, FRAME = "target", "frame"
# Both services refuse a message whose text is empty.
_FILLER = "-"
_MOST_ENTRIES = 10
# What queues are made to take, in a message and in a call.
QUEUE_BYTES = 1 << 20
# What the services count of a message beside its frame: names, types and values of its attributes, and its text.
_TARGET_BYTES = len(TARGET) + len("String") + len("99-65535")
# Below the limit of a call by so much: one byte that is counted otherwise than here would fail every large call.
_MARGIN_BYTES = 1_024
_FRAME_BYTES = len(FRAME) + len("Binary") + len(_FILLER)


def _target(value: str) -> dict[str, Any]:
    return {TARGET: {"DataType": "String", "StringValue": value}}


def _content(frame: bytes, payload: str) -> tuple[str, dict[str, Any]]:
    """The text and the attributes that carry a frame."""
    if payload == "text":
        return base64.b64encode(frame).decode(), {}
    return _FILLER, {FRAME: {"DataType": "Binary", "BinaryValue": frame}}


def sns_entry(number: int, frame: bytes, target: str, payload: str) -> dict[str, Any]:
    """An entry of a `PublishBatch`, which subscriptions filter by `target`."""
    text, attributes = _content(frame, payload)
    return {"Id": str(number), "Message": text, "MessageAttributes": {**_target(target), **attributes}}


def sqs_entry(number: int, frame: bytes, payload: str) -> dict[str, Any]:
    """An entry of a `SendMessageBatch`."""
    text, attributes = _content(frame, payload)
    return {"Id": str(number), "MessageBody": text, "MessageAttributes": attributes}


def read_frame(message: Mapping[str, Any]) -> bytes:
    """The frame in a message as SQS hands it out, whichever way it travelled; nothing if it carries none."""
    attribute = message.get("MessageAttributes", {}).get(FRAME, {})
    if "BinaryValue" in attribute:
        return bytes(attribute["BinaryValue"])
    try:
        return base64.b64decode(message.get("Body", ""), validate=True)
    except ValueError:
        return b""


def limits(publish_bytes: int, payload: str, *, addressed: bool, **more: Any) -> ChannelCapabilities:
    """The limits of a channel of a service that takes calls up to `publish_bytes`; `addressed` messages bear a target.

    As base64 text a frame takes four bytes for three, padding included; the limits are given in bytes of frames.
    """
    text = payload == "text"
    publish_bytes -= _MARGIN_BYTES
    overhead = (_TARGET_BYTES if addressed else 0) + (0 if text else _FRAME_BYTES)
    if text:
        publish_bytes, overhead = publish_bytes * 3 // 4, overhead * 3 // 4 + 3
    return ChannelCapabilities(
        max_frame_bytes=publish_bytes - overhead,
        max_publish_frames=_MOST_ENTRIES,
        max_publish_bytes=publish_bytes,
        frame_overhead_bytes=overhead,
        max_receive_frames=_MOST_ENTRIES,
        multi_target=addressed,
        releases=True,
        **more,
    )


_LONGEST_POLL_SECONDS = 20
# The SDK has tried for some seconds by then.
_THROTTLED_SECONDS = 1.0
_DELETES_IN_FLIGHT = 2


def queue_capabilities(of: Deployment | AwsSettings) -> ChannelCapabilities:
    """The limits of the channel ``queue``."""
    return limits(of.topic_bytes, of.payload, addressed=True, **_shared(of))


def sqs_capabilities(of: Deployment | AwsSettings) -> ChannelCapabilities:
    """The limits of the channel ``sqs``."""
    return limits(QUEUE_BYTES, of.payload, addressed=False, **_shared(of))


def _shared(of: Deployment | AwsSettings) -> dict[str, Any]:
    return {
        "publishes_in_flight": of.publishes_in_flight,
        "background_receive": of.background_receive,
        "lanes": of.lanes,
        # Both kinds of channel use the same queues.
        "lane_pool": "queues",
    }


class _QueueChannel(Channel):
    """An endpoint that receives from the queue of its (lane, rank).

    Deletions are made by threads of their own, off the path of the run; `close` waits for them. What could not be
    deleted comes again, to this run, which knows it, or to a later one, which ignores it.
    """

    def __init__(self, clients: Clients, deployment: Deployment, address: Address) -> None:
        self._clients, self._deployment, self._address = clients, deployment, address
        self._count: Callable[[str], None] = _count_nothing
        self._deletes = ThreadPoolExecutor(_DELETES_IN_FLIGHT, thread_name_prefix="fsd-delete")
        self._deleting: list[Future[None]] = []

    def observe(self, count: Callable[[str], None]) -> None:
        self._count = count

    @property
    def _sqs(self) -> Any:
        return self._clients.client("sqs")

    def _url(self, rank: int) -> str:
        return self._deployment.queue_url(self._address.lane, rank, self._sqs.meta.endpoint_url)

    def send(self, frames: Sequence[Outgoing]) -> None:
        check_publish(frames, self.capabilities)
        if frames:
            self._send(frames)

    @abstractmethod
    def _send(self, frames: Sequence[Outgoing]) -> None:
        """Send `frames`, which keep the limits."""

    def receive(self, deadline: Deadline) -> list[Received]:
        """As every channel, but a wait may go beyond the deadline by less than a second: SQS knows whole ones."""
        first = True
        while True:
            try:
                received = self._poll(min(_LONGEST_POLL_SECONDS, math.ceil(deadline.remaining())), first)
            except ChannelError as error:
                if deadline.passed() or not is_throttled(error.__cause__):
                    raise
                received = []
                SYSTEM_CLOCK.sleep(_THROTTLED_SECONDS)
            if received or deadline.passed():
                return received
            first = False

    def _poll(self, seconds: int, first: bool) -> list[Received]:
        if not first:
            self._count("receives")
        with translated(f"receiving from {self._url(self._address.rank)}", ChannelError):
            answer = self._sqs.receive_message(
                QueueUrl=self._url(self._address.rank),
                MaxNumberOfMessages=self.capabilities.max_receive_frames,
                WaitTimeSeconds=seconds,
                MessageAttributeNames=[FRAME],
            )
        received = [Received(read_frame(message), message["ReceiptHandle"]) for message in answer.get("Messages", ())]
        self._drop([item for item in received if not item.data])
        return [item for item in received if item.data]

    def _drop(self, received: Sequence[Received]) -> None:
        """Delete messages that carry no frame: somebody else's, which would come again for ever."""
        self.acknowledge(received)
        for _ in received:
            self._count("dropped")

    def acknowledge(self, received: Sequence[Received]) -> None:
        self._settle()
        for batch in _batches(received):
            self._deleting.append(self._deletes.submit(self._delete, batch))

    def _settle(self) -> None:
        """Raise what a deletion has raised."""
        done = [future for future in self._deleting if future.done()]
        self._deleting = [future for future in self._deleting if not future.done()]
        for future in done:
            future.result()

    def _delete(self, batch: Sequence[Received]) -> None:
        url = self._url(self._address.rank)

        def call(entries: Entries) -> dict[str, Any]:
            answer: dict[str, Any] = self._sqs.delete_message_batch(QueueUrl=url, Entries=entries)
            return answer

        entries = [{"Id": str(number), "ReceiptHandle": item.token} for number, item in enumerate(batch)]
        self._call(entries, call, f"deleting from {url}", "acknowledges")

    def _call(self, entries: Entries, call: Callable[[Entries], dict[str, Any]], doing: str, counter: str) -> None:
        until_none_fails(entries, call, self._address.patience_seconds, doing, lambda: self._count(counter))

    def release(self, received: Sequence[Received]) -> None:
        """Make these deliveries visible again at once.

        An entry that fails is of no account: it is gone, or has come again, or will when its time is over.
        """
        url = self._url(self._address.rank)
        for batch in _batches(received):
            entries = [
                {"Id": str(number), "ReceiptHandle": item.token, "VisibilityTimeout": 0}
                for number, item in enumerate(batch)
            ]
            with translated(f"giving back to {url}", ChannelError):
                self._sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)

    def purge(self) -> int:
        """Throw away what waits, and return 0: SQS does not say how much it was."""
        url = self._url(self._address.rank)
        with translated(f"purging {url}", ChannelError):
            self._sqs.purge_queue(QueueUrl=url)
        return 0

    def close(self) -> None:
        self._deletes.shutdown()


class SnsChannel(_QueueChannel):
    """Publishes through the topic of its rank; filters bring each message to the queue it is for."""

    @property
    def capabilities(self) -> ChannelCapabilities:
        """Up to ten frames in one publish, for any ranks; its size follows from the deployment's `topic_bytes`."""
        return queue_capabilities(self._deployment)

    def _send(self, frames: Sequence[Outgoing]) -> None:
        deployment, lane = self._deployment, self._address.lane
        topic = deployment.topic_arn(deployment.shard(self._address.rank))
        entries = [
            sns_entry(number, frame.data, deployment.target(lane, frame.target), deployment.payload)
            for number, frame in enumerate(frames)
        ]

        def call(entries: Entries) -> dict[str, Any]:
            answer: dict[str, Any] = self._clients.client("sns").publish_batch(
                TopicArn=topic, PublishBatchRequestEntries=entries
            )
            return answer

        self._call(entries, call, f"publishing to {topic}", "publishes")


class SqsChannel(_QueueChannel):
    """Sends straight to the queue of the target: larger calls and no charge of SNS, but one call per target."""

    @property
    def capabilities(self) -> ChannelCapabilities:
        """One call carries up to ten frames for a single rank, 1 MiB in all."""
        return sqs_capabilities(self._deployment)

    def _send(self, frames: Sequence[Outgoing]) -> None:
        url = self._url(frames[0].target)
        entries = [sqs_entry(number, frame.data, self._deployment.payload) for number, frame in enumerate(frames)]

        def call(entries: Entries) -> dict[str, Any]:
            answer: dict[str, Any] = self._sqs.send_message_batch(QueueUrl=url, Entries=entries)
            return answer

        self._call(entries, call, f"sending to {url}", "publishes")


def _batches(received: Sequence[Received]) -> list[Sequence[Received]]:
    return [received[start : start + 10] for start in range(0, len(received), 10)]


def _count_nothing(*counters: str) -> None:
    """Stands in until somebody counts."""
