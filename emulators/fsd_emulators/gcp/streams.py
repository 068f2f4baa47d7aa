"""A streaming pull: messages one way, acknowledgements the other, under the receiver's flow control."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from fsd_emulators.gcp.broker import Delivery, Outstanding, ServiceError, Subscription

_MOST_MESSAGES = 1000
_MOST_BYTES = 10_000_000
_LONGEST_WAIT = 30.0


class Stream:
    """One open streaming pull, which has `acknowledge` called with the ids that its receiver acknowledges."""

    def __init__(self, subscription: Subscription, first: Any, acknowledge: Callable[[Iterable[str]], None]) -> None:
        if not 10 <= first.stream_ack_deadline_seconds <= 600:
            raise ServiceError("INVALID_ARGUMENT", "stream_ack_deadline_seconds must be from 10 to 600.")
        self._subscription, self._acknowledge = subscription, acknowledge
        self._seconds = first.stream_ack_deadline_seconds
        self._most = first.max_outstanding_messages or sys.maxsize
        self._most_bytes = first.max_outstanding_bytes or sys.maxsize
        self._held = Outstanding()
        self._half_closed = False
        self._apply(first)

    def _apply(self, request: Any) -> None:
        if request.stream_ack_deadline_seconds:
            self._seconds = request.stream_ack_deadline_seconds
        self._acknowledge(request.ack_ids)
        deadlines = zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=False)
        for ack_id, seconds in deadlines:
            self._subscription.extend([ack_id], seconds)

    async def _read(self, requests: AsyncIterator[Any]) -> None:
        async for request in requests:
            self._apply(request)
        self._half_closed = True
        self._subscription.wake()

    async def deliveries(self, requests: AsyncIterator[Any]) -> AsyncIterator[list[Delivery]]:
        """What to send, until the receiver has closed its side or the subscription is gone (`ServiceError`)."""
        reading = asyncio.create_task(self._read(requests))
        try:
            while not self._half_closed:
                taken = self._take()
                if taken:
                    yield taken
                    continue
                await self._subscription.wait(_LONGEST_WAIT)
                if self._subscription.deleted:
                    raise ServiceError("NOT_FOUND", f"Resource not found (subscription={self._subscription.pb.name}).")
        finally:
            reading.cancel()

    def _take(self) -> list[Delivery]:
        self._subscription.bring_back()
        room = min(self._most - self._held.messages, _MOST_MESSAGES)
        bytes_left = min(self._most_bytes - self._held.size, _MOST_BYTES)
        if room <= 0 or bytes_left <= 0:
            return []
        return self._subscription.take(room, bytes_left, self._seconds, self._held)
