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
    """The run and rank that an endpoint belongs to, in a run of `workers`.

    `lane` separates runs that share the queues of one deployment; only one run at a time holds a lane. A call that the
    service throttles may be retried for `patience_seconds`, the longest wait of the run.
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
    """A frame that arrived, and the token by which the channel identifies this delivery."""

    data: bytes
    token: object


class Slot(NamedTuple):
    """The key of messages that are waited for together: one kind of message, of one batch and layer."""

    kind: int
    batch: int
    layer: int


class Channel(ABC):
    """An endpoint of one rank in one run: sends frames to other ranks, receives those for its own.

    **Delivery** is at least once and in any order: a frame may arrive twice, late, or after younger ones. It is never
    altered, and every frame is delivered in the end, as long as the receiver keeps calling `receive`. Frames of earlier
    runs on the same lane may arrive; the core recognizes them by their run id. Messages that are no frames may arrive
    too, if somebody else sent them; the channel or the core drops them.

    **Blocking.** `send` blocks until the service has accepted the frames. `receive` blocks until at least one frame has
    arrived or the deadline has passed, and returns the frames there are. An empty list is not an error. `send` may be
    called from several threads at once, and at the same time as `receive`; `receive`, `acknowledge` and `release` are
    called from one thread.

    **Repeating.** `send` may be repeated after an error: duplicates do no harm. A frame that was received and not
    acknowledged may be delivered again (`redelivers`), so the caller acknowledges frames once it has stored them.

    **Limits** are in `capabilities`, and the caller keeps them. A channel raises `FrameTooLargeError` for frames beyond
    them before it sends anything.

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
        """Say that these deliveries are stored and need not be repeated."""

    def release(self, received: Sequence[Received]) -> None:  # noqa: B027 - they come again by themselves
        """Give back deliveries, identified by their tokens, so that they are delivered again at once (`releases`).

        They belong to another run, or arrived before the worker had room for them; `data` may be empty by now. By
        default nothing is done, and the service delivers them again after its own timeout.
        """

    def expect(self, slot: Slot, sources: Sequence[int]) -> None:  # noqa: B027 - a hint
        """Hint: the caller will wait for messages of `slot` from `sources`.

        A channel that has to ask for frames by name needs it; others ignore it. Repeating it is harmless.
        """

    def observe(self, count: Callable[[str], None]) -> None:  # noqa: B027 - most have nothing to tell
        """Report to `count` what only the channel knows, by the names in `fsdcore.record.record.COUNTERS`.

        These are ``puts``, ``gets`` and ``lists`` of a store behind the channel, calls that were retried, and messages
        that were no frames.
        """

    def purge(self) -> int:
        """Delete frames that wait for this rank, of any run, and return how many (0 if not known).

        Called while no worker of this lane runs. By default there is nothing to delete.
        """
        return 0

    @abstractmethod
    def close(self) -> None:
        """Give back what the endpoint holds. May be called twice."""
