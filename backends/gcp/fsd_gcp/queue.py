"""FSD-Inf-Queue over Pub/Sub: every rank has a topic and a subscription of its own, on every lane.

Messages are pulled when the worker waits for them, one pull at a time, and acknowledged as soon as they are taken in,
without waiting for the service to say so. Until then they wait in the service, so no deadline runs while the worker
computes, and none has to be extended. `stream` is another way to pull, over the same topics.
"""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import grpc
from google.api_core import exceptions, gapic_v1
from google.api_core.retry import Retry, if_exception_type
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.types import AcknowledgeRequest, ModifyAckDeadlineRequest, PullRequest, StreamingPullRequest

from fsd_gcp.calls.errors import TopicMissingError, translation
from fsd_gcp.deployment import Deployment
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.errors import ChannelError, FsdError
from fsdcore.messages.packing import check_publish

# A publish request may hold 1,000 messages and 10,000,000 bytes, envelopes included.
MOST_MESSAGES, MOST_BYTES, _ENVELOPE = 1_000, 9_900_000, 64
_LARGEST_FRAME = 9_000_000
_ATTEMPT, _TOTAL = 30.0, 60.0
# The service answers an empty pull sooner; the emulators do so at the caller's deadline only.
_PULL_SECONDS = 90.0
_CLOSE_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
TRANSIENT = (
    exceptions.Aborted,
    exceptions.Cancelled,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.ServiceUnavailable,
    exceptions.TooManyRequests,
    exceptions.Unknown,
)
_RETRY = Retry(predicate=if_exception_type(*TRANSIENT), initial=0.1, maximum=5.0, multiplier=2.0, timeout=_TOTAL)


def queue_capabilities(publishes_in_flight: int, lanes: int) -> ChannelCapabilities:
    """The limits of Pub/Sub."""
    return ChannelCapabilities(
        max_frame_bytes=_LARGEST_FRAME,
        max_publish_frames=MOST_MESSAGES,
        max_publish_bytes=MOST_BYTES,
        frame_overhead_bytes=_ENVELOPE,
        max_receive_frames=MOST_MESSAGES,
        multi_target=False,
        publishes_in_flight=publishes_in_flight,
        lanes=lanes,
        # Both ways to pull are of the same topics.
        lane_pool="queues",
        releases=True,
        receives_on=True,
    )


def translated_error(error: Exception, what: str) -> FsdError:
    """The framework's error: `TopicMissingError` for a 404, else what `translation` makes of it."""
    if isinstance(error, exceptions.NotFound):
        return TopicMissingError(f"{what}: a topic or subscription is missing; run: fsd deploy gcp")
    return translation(error, what, ChannelError)


class PubsubChannel(Channel):
    """The endpoint of one rank. The clients are shared and stay open when the channel closes."""

    def __init__(
        self, publisher: PublisherClient, subscriber: SubscriberClient, deployment: Deployment, address: Address
    ) -> None:
        self._publisher, self._subscriber = publisher, subscriber
        self._deployment, self._address = deployment, address
        self._limits = queue_capabilities(deployment.publishes_in_flight, deployment.lanes)
        self._subscription = deployment.subscription(address.lane, address.rank)
        routing = (("subscription", self._subscription),)
        self._metadata = (gapic_v1.routing_header.to_grpc_metadata(routing),)
        self._pull: Any = None
        self._pause = _FIRST_PAUSE
        self._acknowledging: list[Any] = []

    @property
    def capabilities(self) -> ChannelCapabilities:
        """Up to 1,000 frames and 9.9 MB in one publish, all for one rank, as each rank has its own topic."""
        return self._limits

    def send(self, frames: Sequence[Outgoing]) -> None:
        """One `Publish` to the topic of the first frame's target; transient errors are retried for a minute."""
        if not frames:
            return
        check_publish(frames, self._limits)
        topic = self._deployment.topic(self._address.lane, frames[0].target)
        messages = [{"data": frame.data} for frame in frames]
        try:
            self._publisher.publish(request={"topic": topic, "messages": messages}, retry=_RETRY, timeout=_ATTEMPT)
        except exceptions.GoogleAPIError as error:
            raise translated_error(error, f"publishing to {topic.rpartition('/')[2]}") from error

    def receive(self, deadline: Deadline) -> list[Received]:
        """A pull that is under way at the deadline goes on, and the next call has what it brings."""
        while True:
            try:
                return self._pulled(deadline)
            except grpc.RpcError as failure:
                self._pull = None
                error = exceptions.from_grpc_error(failure)
                if not isinstance(error, TRANSIENT):
                    raise translated_error(error, "pulling") from error
                if isinstance(error, exceptions.DeadlineExceeded) or deadline.passed():
                    return []
                deadline.clock.sleep(min(self._pause, deadline.remaining()))
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _pulled(self, deadline: Deadline) -> list[Received]:
        if self._pull is None:
            request = PullRequest(subscription=self._subscription, max_messages=MOST_MESSAGES)
            self._pull = self._call("pull", request, _PULL_SECONDS)
        try:
            response = self._pull.result(timeout=deadline.remaining())
        except (grpc.FutureTimeoutError, concurrent.futures.TimeoutError):
            return []
        self._pull, self._pause = None, _FIRST_PAUSE
        return [Received(item.message.data, item.ack_id) for item in type(response).pb(response).received_messages]

    def _call(self, verb: str, request: Any, seconds: float) -> Any:
        """Begin a call of the subscriber service. Its client's own methods only wait for the end."""
        return getattr(self._subscriber.transport, verb).future(request, timeout=seconds, metadata=self._metadata)

    def acknowledge(self, received: Sequence[Received]) -> None:
        """Begins the call. One that fails does no harm: the frames come again, and are known."""
        self._acknowledging = [call for call in self._acknowledging if not call.done()]
        if received:
            tokens = [str(item.token) for item in received]
            request = AcknowledgeRequest(subscription=self._subscription, ack_ids=tokens)
            self._acknowledging.append(self._call("acknowledge", request, _ATTEMPT))

    def release(self, received: Sequence[Received]) -> None:
        """Have these deliveries made again at once."""
        if received:
            tokens = [str(item.token) for item in received]
            request = ModifyAckDeadlineRequest(subscription=self._subscription, ack_ids=tokens, ack_deadline_seconds=0)
            self._acknowledging.append(self._call("modify_ack_deadline", request, _ATTEMPT))

    def purge(self) -> int:
        """Seeks the subscription to now, which acknowledges all that waits; Pub/Sub does not say how much."""
        try:
            self._subscriber.seek(
                request={"subscription": self._subscription, "time": datetime.now(UTC)}, retry=_RETRY, timeout=_ATTEMPT
            )
        except exceptions.GoogleAPIError as error:
            raise translated_error(error, "purging") from error
        return 0

    def close(self) -> None:
        """Cancels the pull under way, and waits up to 5 s for acknowledgements that have been sent."""
        if self._pull is not None:
            self._pull.cancel()
            self._pull = None
        deadline = Deadline.after(_CLOSE_SECONDS, SYSTEM_CLOCK)
        for call in self._acknowledging:
            self._await(call, deadline)
        self._acknowledging.clear()

    def _await(self, call: Any, deadline: Deadline) -> None:
        try:
            call.exception(timeout=deadline.remaining())
        except grpc.FutureTimeoutError:
            call.cancel()


class StreamingChannel(PubsubChannel):
    """A stream is opened at the first receive, read by a thread, and opened anew when the service ends it."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._answers: queue.SimpleQueue[list[Received] | grpc.RpcError] = queue.SimpleQueue()
        self._requests: queue.SimpleQueue[StreamingPullRequest | None] = queue.SimpleQueue()
        self._stream: Any = None
        self._reader: threading.Thread | None = None
        self._wait = _FIRST_PAUSE

    def receive(self, deadline: Deadline) -> list[Received]:
        """Takes what the reading thread has received; opens a stream first if none is open."""
        found: list[Received] = []
        while not found or not self._answers.empty():
            if self._reader is None:
                self._open()
            try:
                answer = self._answers.get(timeout=deadline.remaining())
            except queue.Empty:
                break
            if isinstance(answer, grpc.RpcError):
                self._ended(answer, deadline)
                continue
            self._wait = _FIRST_PAUSE
            found += answer
        return found

    def _open(self) -> None:
        first = StreamingPullRequest(
            subscription=self._subscription,
            stream_ack_deadline_seconds=self._deployment.ack_deadline,
            # What is out, not yet acknowledged, is never more than one pull would bring.
            max_outstanding_messages=MOST_MESSAGES,
            max_outstanding_bytes=MOST_BYTES,
        )
        # The side that sends stays open, and silent, until the stream is over.
        self._requests = queue.SimpleQueue()
        self._requests.put(first)
        begin: Any = self._subscriber.transport.streaming_pull
        self._stream = begin(iter(self._requests.get, None), metadata=self._metadata)
        self._reader = threading.Thread(target=self._read, args=(self._stream,), name="fsd-stream", daemon=True)
        self._reader.start()

    def _read(self, stream: Any) -> None:
        try:
            for response in stream:
                messages = type(response).pb(response).received_messages
                self._answers.put([Received(item.message.data, item.ack_id) for item in messages])
            self._answers.put(_Ended())
        except grpc.RpcError as error:
            self._answers.put(error)

    def _ended(self, failure: grpc.RpcError, deadline: Deadline) -> None:
        """Have the next stream opened, after a pause, unless what ended this one will not pass."""
        self._reader = None
        self._requests.put(None)
        if not isinstance(failure, _Ended):
            error = exceptions.from_grpc_error(failure)
            if not isinstance(error, TRANSIENT):
                raise translated_error(error, "pulling") from error
        deadline.clock.sleep(min(self._wait, deadline.remaining()))
        self._wait = min(2 * self._wait, _LONGEST_PAUSE)

    def close(self) -> None:
        """What came and nobody has taken is given back."""
        if self._reader is not None:
            self._stream.cancel()
            self._requests.put(None)
            self._reader.join(_CLOSE_SECONDS)
            self._reader = None
        while not self._answers.empty():
            answer = self._answers.get()
            if isinstance(answer, list):
                self.release(answer)
        super().close()


class _Ended(grpc.RpcError):
    """The service has ended a stream in order, as it does after some time."""
