"""The contract of a channel between workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fsdcore.clock import Deadline
from fsdcore.contracts.limits import ChannelCapabilities


@dataclass(frozen=True)
class Address:
    """Where an endpoint stands: a rank of `workers` in a run.

    `lane` tells apart runs that share the queues of one deployment; a run holds its lane alone. What the service puts
    off, since too much is asked of it, may be tried again for `patience_seconds`: the run's longest wait.
    """

    run: str
    rank: int
    workers: int
    lane: int = 0
    patience_seconds: float = 60.0


class Outgoing(NamedTuple):
    """A frame to send: the rank it is for, and its bytes."""

    target: int
    data: bytes


class Received(NamedTuple):
    """A frame that came, and the token by which the channel knows this delivery."""

    data: bytes
    token: object


class Slot(NamedTuple):
    """What messages belong together: one kind of message, of one batch and layer."""

    kind: int
    batch: int
    layer: int


class Channel(ABC):
    """An endpoint of one rank in one run: sends frames to other ranks, receives those for its own.

    **Delivery** is at least once and in any order: a frame may come twice, late, or after younger ones. It is
    never altered, and a frame that was sent is delivered in the end as long as the receiver goes on calling
    `receive`. Frames of earlier runs on the same lane may come; the core tells them apart by their run id. What
    a stranger has sent and is no frame may come as well, and be thrown away by the channel or by the core.

    **Blocking.** `send` blocks until the service has taken the frames. `receive` blocks until at least one frame
    is there or the deadline has passed, and then returns what there is, perhaps nothing: an empty return is not
    an error. `send` may be called from several threads at once, and at the same time as `receive`; `receive`,
    `acknowledge` and `release` are called from one thread.

    **Repeating.** `send` may be repeated after an error: doubles do no harm. A frame that was received and not
    acknowledged may come again (`redelivers`), so frames are acknowledged once taken in.

    **Limits** are in `capabilities`; the caller keeps them, a channel refuses a breach with
    `FrameTooLargeError` before it sends anything.

    **Errors.** `ChannelError` for what the service refuses; a store behind the channel may raise `StoreError`.
    """

    @property
    @abstractmethod
    def capabilities(self) -> ChannelCapabilities:
        """The limits of this channel; does not change."""

    @abstractmethod
    def send(self, frames: Sequence[Outgoing]) -> None:
        """Publish `frames` in one call of the service (or as few as it can)."""

    @abstractmethod
    def receive(self, deadline: Deadline) -> list[Received]:
        """Frames for this rank; none if the deadline passes first."""

    @abstractmethod
    def acknowledge(self, received: Sequence[Received]) -> None:
        """Say that these deliveries have been taken in and need not come again."""

    def release(self, received: Sequence[Received]) -> None:  # noqa: B027 - they come again by themselves
        """Give back deliveries, known by their tokens, so that they come again at once (`releases`).

        They are another run's, or came before there was room for them; `data` may be empty by now. The default leaves
        it to the time after which frames come again anyway.
        """

    def expect(self, slot: Slot, sources: Sequence[int]) -> None:  # noqa: B027 - a hint
        """Hint: the caller will wait for messages of `slot` from `sources`.

        A channel that must ask for frames by name uses it; others need not care. Saying it again is harmless.
        """

    def observe(self, count: Callable[[str], None]) -> None:  # noqa: B027 - most have nothing to tell
        """Have `count` told of what only the channel knows of, by the names of `fsdcore.record.record.COUNTERS`.

        ``puts``, ``gets`` and ``lists`` of a store behind it, calls that were made again, messages that were no frames.
        """

    def purge(self) -> int:
        """Throw away frames waiting for this rank, of whatever run, and return how many (0 if not known).

        Called with no worker of this lane running. The default has nothing to throw away.
        """
        return 0

    @abstractmethod
    def close(self) -> None:
        """Give back what the endpoint holds. May be called twice."""
