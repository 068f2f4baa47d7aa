"""Topics and subscriptions in memory, with the manners of Pub/Sub: at least once, in no order to rely on.

Nothing here knows of gRPC or threads: all calls come from one event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fsdcore.clock import SYSTEM_CLOCK, Clock


class ServiceError(Exception):
    """What the service answers instead: `code` is the name of a gRPC status code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class Outstanding:
    """What a receiver holds unacknowledged: the flow control of a stream."""

    messages: int = 0
    size: int = 0


@dataclass
class _Waiting:
    message: Any
    size: int
    attempts: int = 0


@dataclass
class Delivery:
    """A message handed out: `ack_id` names this delivery and no other of the same message."""

    ack_id: str
    message: Any
    size: int
    attempts: int
    until: float
    holder: Outstanding | None = field(default=None, repr=False)


class Subscription:
    """The messages that wait for one subscriber, and those it holds."""

    def __init__(self, pb: Any, seed: int, clock: Clock) -> None:
        self.pb = pb
        self._clock = clock
        self._shuffle = random.Random(f"{seed} {pb.name}") if seed >= 0 else None
        self._waiting: deque[_Waiting] = deque()
        self._later: list[tuple[float, int, _Waiting]] = []
        self._held: dict[str, Delivery] = {}
        self._expiries: list[tuple[float, str]] = []
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()
        self.deleted = False

    def add(self, message: Any, size: int, delay: float = 0.0) -> None:
        """Add a message, to be seen `delay` seconds from now."""
        waiting = _Waiting(message, size)
        if delay > 0:
            heapq.heappush(self._later, (self._clock.now() + delay, next(self._numbers), waiting))
        else:
            self._waiting.append(waiting)
        self.wake()

    def take(self, most: int, most_bytes: int, seconds: float, holder: Outstanding | None = None) -> list[Delivery]:
        """Up to `most` messages and `most_bytes` (one at least if any waits), held for `seconds`."""
        self.bring_back()
        taken: list[Delivery] = []
        size = 0
        while self._waiting and len(taken) < most:
            if self._shuffle is not None:
                self._waiting.rotate(self._shuffle.randrange(len(self._waiting)))
            if taken and size + self._waiting[0].size > most_bytes:
                break
            delivery = self._hold(self._waiting.popleft(), seconds, holder)
            size += delivery.size
            taken.append(delivery)
        return taken

    def _hold(self, waiting: _Waiting, seconds: float, holder: Outstanding | None) -> Delivery:
        ack_id = f"{next(self._numbers)}"
        until = self._clock.now() + seconds
        delivery = Delivery(ack_id, waiting.message, waiting.size, waiting.attempts + 1, until, holder)
        self._held[ack_id] = delivery
        heapq.heappush(self._expiries, (until, ack_id))
        if holder is not None:
            holder.messages += 1
            holder.size += delivery.size
        return delivery

    def bring_back(self) -> float:
        """Show again what was held too long, and what was to come later; returns the seconds until the next."""
        now = self._clock.now()
        while self._expiries and self._expiries[0][0] <= now:
            _, ack_id = heapq.heappop(self._expiries)
            delivery = self._held.get(ack_id)
            if delivery is not None and delivery.until <= now:
                self._give_back(self._drop(delivery))
        while self._later and self._later[0][0] <= now:
            self._waiting.append(heapq.heappop(self._later)[2])
        nexts = [heap[0][0] - now for heap in (self._expiries, self._later) if heap]
        return min(nexts, default=60.0)

    def _drop(self, delivery: Delivery) -> Delivery:
        del self._held[delivery.ack_id]
        if delivery.holder is not None:
            delivery.holder.messages -= 1
            delivery.holder.size -= delivery.size
        self.wake()
        return delivery

    def _give_back(self, delivery: Delivery) -> None:
        self._waiting.append(_Waiting(delivery.message, delivery.size, delivery.attempts))
        self.wake()

    def acknowledge(self, ack_ids: Iterable[str]) -> None:
        """Forget these deliveries; one that is no longer held is passed over, as the service does."""
        self.bring_back()
        for ack_id in ack_ids:
            if ack_id in self._held:
                self._drop(self._held[ack_id])

    def extend(self, ack_ids: Iterable[str], seconds: float) -> None:
        """Hold these deliveries until `seconds` from now; with 0 they come again at once."""
        self.bring_back()
        for ack_id in ack_ids:
            delivery = self._held.get(ack_id)
            if delivery is None:
                continue
            if seconds == 0:
                self._give_back(self._drop(delivery))
            else:
                delivery.until = self._clock.now() + seconds
                heapq.heappush(self._expiries, (delivery.until, ack_id))

    def wake(self) -> None:
        """Have all who wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Until something has changed since the last look, or `seconds` have passed; no await may lie between."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), min(seconds, max(self.bring_back(), 0.001)))

    def purge(self) -> None:
        """Forget all messages, held or not."""
        for delivery in list(self._held.values()):
            self._drop(delivery)
        self._waiting.clear()
        self._later.clear()

    def purge_before(self, nanoseconds: int) -> None:
        """Forget all messages published before that time, held or not."""

        def young(message: Any) -> bool:
            return bool(message.publish_time.ToNanoseconds() >= nanoseconds)

        for delivery in [held for held in self._held.values() if not young(held.message)]:
            self._drop(delivery)
        self._waiting = deque(one for one in self._waiting if young(one.message))
        self._later = [entry for entry in self._later if young(entry[2].message)]
        heapq.heapify(self._later)

    def __len__(self) -> int:
        """How many messages there are, held or not."""
        return len(self._waiting) + len(self._held) + len(self._later)

    def close(self) -> None:
        """Tell all who wait that the subscription is gone."""
        self.purge()
        self.deleted = True
        self.wake()


class Broker:
    """All topics and subscriptions. `seed` gives the order of deliveries; negative for the order of arrival."""

    def __init__(self, seed: int = -1, clock: Clock = SYSTEM_CLOCK) -> None:
        self._seed, self._clock = seed, clock
        self.topics: dict[str, Any] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self._message_ids = itertools.count(1)

    def create_topic(self, pb: Any) -> Any:
        _absent(self.topics, pb.name, "topic")
        self.topics[pb.name] = pb
        return pb

    def topic(self, name: str) -> Any:
        return _present(self.topics, name, "topic")

    def delete_topic(self, name: str) -> None:
        """Its subscriptions stay and keep what they have; their topic is named ``_deleted-topic_`` from then on."""
        self.topic(name)
        del self.topics[name]
        for subscription in self.attached(name):
            subscription.pb.topic = "_deleted-topic_"

    def create_subscription(self, pb: Any) -> Any:
        _absent(self.subscriptions, pb.name, "subscription")
        self.topic(pb.topic)
        self.subscriptions[pb.name] = Subscription(pb, self._seed, self._clock)
        return pb

    def subscription(self, name: str) -> Subscription:
        found: Subscription = _present(self.subscriptions, name, "subscription")
        return found

    def delete_subscription(self, name: str) -> None:
        self.subscription(name).close()
        del self.subscriptions[name]

    def attached(self, topic: str) -> list[Subscription]:
        """The subscriptions of a topic."""
        return [subscription for subscription in self.subscriptions.values() if subscription.pb.topic == topic]

    def stamp(self, message: Any) -> str:
        """Give a message that was published its id and time; returns the id."""
        message.message_id = str(next(self._message_ids))
        message.publish_time.FromNanoseconds(int(self._clock.wall() * 1e9))
        return str(message.message_id)

    def deliver(self, topic: str, message: Any, delay: float = 0.0) -> None:
        """Hand a stamped message to each subscription of its topic, `delay` seconds from now."""
        size = message.ByteSize()
        for subscription in self.attached(topic):
            subscription.add(message, size, delay)


def _absent(things: dict[str, Any], name: str, kind: str) -> None:
    if name in things:
        raise ServiceError("ALREADY_EXISTS", f"Resource already exists in the project ({kind}={name}).")


def _present(things: dict[str, Any], name: str, kind: str) -> Any:
    if name not in things:
        raise ServiceError("NOT_FOUND", f"Resource not found ({kind}={name}).")
    return things[name]
