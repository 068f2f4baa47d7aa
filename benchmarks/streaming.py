"""The queue channel on Pub/Sub by streaming pull: what `benchmarks.pull` measures the channel's own way against.

Only this file goes into the source of the function beside what it has anyway.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Any

import grpc
from google.api_core import exceptions
from google.pubsub_v1.types import StreamingPullRequest

from backends.gcp.queue import PubsubChannel
from fsdcore.channel import Received
from fsdcore.clock import Deadline
from fsdcore.errors import ChannelError

__all__ = ["StreamingChannel"]

_MOST_OUTSTANDING = 1_000
_CLOSE_SECONDS = 5.0


class StreamingChannel(PubsubChannel):
    """A stream that is opened at the first receive and read by a thread; acknowledgements go the other way."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._requests: queue.SimpleQueue[StreamingPullRequest | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[list[Received] | grpc.RpcError] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None

    def _open(self) -> None:
        first = StreamingPullRequest(
            subscription=self._subscription,
            stream_ack_deadline_seconds=self._deployment.ack_deadline,
            max_outstanding_messages=_MOST_OUTSTANDING,
        )
        self._requests.put(first)
        # As gRPC has it; the type says what Google's wrapper takes.
        begin: Any = self._subscriber.transport.streaming_pull
        self._stream = begin(iter(self._requests.get, None), metadata=self._metadata)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for response in self._stream:
                messages = type(response).pb(response).received_messages
                self._answers.put([Received(item.message.data, item.ack_id) for item in messages])
        except grpc.RpcError as error:
            self._answers.put(error)

    def receive(self, deadline: Deadline) -> list[Received]:
        if self._reader is None:
            self._open()
        found: list[Received] = []
        while not found or not self._answers.empty():
            try:
                answer = self._answers.get(timeout=deadline.remaining())
            except queue.Empty:
                break
            if isinstance(answer, grpc.RpcError):
                raise ChannelError(f"the stream ended: {exceptions.from_grpc_error(answer)}") from answer
            found += answer
        return found

    def acknowledge(self, received: Sequence[Received]) -> None:
        if received:
            self._requests.put(StreamingPullRequest(ack_ids=[str(item.token) for item in received]))

    def close(self) -> None:
        """The end of what is sent has the server take in the acknowledgements and end the stream."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._requests.put(None)
            reader.join(_CLOSE_SECONDS)
            self._stream.cancel()
        super().close()
