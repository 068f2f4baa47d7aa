"""Queues in memory with the manners of a cloud queue: at least once, in no order to rely on."""

from __future__ import annotations

import itertools
import random
import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from fsdcore.clock import Clock, Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.messages.packing import check_publish


class _Hidden(NamedTuple):
    data: bytes
    until: float


class Queue:
    """Frames that wait. One that is received is hidden for a time, and comes again if it is not acknowledged."""

    def __init__(self, visibility_timeout: float, shuffle: random.Random | None, clock: Clock) -> None:
        self._visibility_timeout, self._shuffle, self._clock = visibility_timeout, shuffle, clock
        self._visible: deque[bytes] = deque()
        self._hidden: dict[int, _Hidden] = {}
        self._tokens = itertools.count()
        self._changed = clock.condition()

    def put(self, frames: Sequence[bytes]) -> None:
        """Add frames."""
        with self._changed:
            self._visible.extend(frames)
            self._changed.notify_all()

    def get(self, most: int, deadline: Deadline) -> list[Received]:
        """Up to `most` frames; none if the deadline passes first."""
        with self._changed:
            while True:
                due = self._bring_back()
                if self._visible:
                    return [self._hide(self._pick()) for _ in range(min(most, len(self._visible)))]
                if deadline.passed():
                    return []
                self._changed.wait(min(deadline.remaining(), due))

    def _bring_back(self) -> float:
        """Show again what was hidden long enough; returns the seconds until the next."""
        now = self._clock.now()
        for token, hidden in list(self._hidden.items()):
            if hidden.until > now:
                # Hidden in order of time: the rest is younger.
                return hidden.until - now
            del self._hidden[token]
            self._visible.append(hidden.data)
        return self._visibility_timeout

    def _pick(self) -> bytes:
        if self._shuffle is not None:
            self._visible.rotate(self._shuffle.randrange(len(self._visible)))
        return self._visible.popleft()

    def _hide(self, data: bytes) -> Received:
        token = next(self._tokens)
        self._hidden[token] = _Hidden(data, self._clock.now() + self._visibility_timeout)
        return Received(data, token)

    def acknowledge(self, received: Sequence[Received]) -> None:
        """Forget these deliveries."""
        with self._changed:
            for item in received:
                if isinstance(item.token, int):
                    self._hidden.pop(item.token, None)

    def release(self, received: Sequence[Received]) -> None:
        """Show these deliveries again."""
        with self._changed:
            for item in received:
                if isinstance(item.token, int) and item.token in self._hidden:
                    self._visible.append(self._hidden.pop(item.token).data)
            self._changed.notify_all()

    def purge(self) -> int:
        """Forget everything; returns how many frames that were."""
        with self._changed:
            count = len(self._visible) + len(self._hidden)
            self._visible.clear()
            self._hidden.clear()
            return count


class QueueService:
    """All queues of a deployment, one per (lane, rank), made when first used. Frames stay when a run ends."""

    def __init__(
        self,
        limits: ChannelCapabilities,
        visibility_timeout: float,
        clock: Clock,
        shuffle_seed: int = -1,
    ) -> None:
        self.limits = limits
        self._visibility_timeout, self._shuffle_seed, self._clock = visibility_timeout, shuffle_seed, clock
        self._queues: dict[tuple[int, int], Queue] = {}
        self._lock = threading.Lock()

    def queue(self, lane: int, rank: int) -> Queue:
        """The queue of a rank."""
        with self._lock:
            if (lane, rank) not in self._queues:
                seed = self._shuffle_seed
                shuffle = random.Random(f"{seed} {lane} {rank}") if seed >= 0 else None
                self._queues[lane, rank] = Queue(self._visibility_timeout, shuffle, self._clock)
            return self._queues[lane, rank]


class LocalQueueChannel(Channel):
    """The endpoint of one rank over a `QueueService`."""

    def __init__(self, service: QueueService, address: Address) -> None:
        self._service, self._address = service, address

    @property
    def capabilities(self) -> ChannelCapabilities:
        return self._service.limits

    def _own(self) -> Queue:
        return self._service.queue(self._address.lane, self._address.rank)

    def send(self, frames: Sequence[Outgoing]) -> None:
        check_publish(frames, self._service.limits)
        by_target: dict[int, list[bytes]] = {}
        for frame in frames:
            by_target.setdefault(frame.target, []).append(frame.data)
        for target, data in by_target.items():
            self._service.queue(self._address.lane, target).put(data)

    def receive(self, deadline: Deadline) -> list[Received]:
        return self._own().get(self._service.limits.max_receive_frames, deadline)

    def acknowledge(self, received: Sequence[Received]) -> None:
        self._own().acknowledge(received)

    def release(self, received: Sequence[Received]) -> None:
        self._own().release(received)

    def purge(self) -> int:
        return self._own().purge()

    def close(self) -> None:
        """Nothing to give back: the queues belong to the service."""
