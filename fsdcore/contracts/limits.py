"""What a backend's parts can do, as data: the core holds no limit of any provider."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChannelCapabilities:
    """The limits of a channel.

    `max_frame_bytes`: largest single frame, header included, before any text encoding, for which it must allow.
    `max_publish_frames`, `max_publish_bytes`: the most that one call carries; the bytes counted are each
    frame's size as `publish_size` gives it.
    `frame_overhead_bytes`: what the service counts on top of each frame (attributes, envelope).
    `multi_target`: one publish may hold frames for several ranks. If not, the core packs per target.
    `max_receive_frames`: the most frames one receive returns.
    `publishes_in_flight`: how many sends are worth running at once; 1 means one after the other.
    `background_receive`: receiving in a thread of its own while multiplying pays.
    `lanes`: how many runs the deployment can carry at once; None if there is no limit.
    `lane_pool`: channels of the same pool share their lanes; by default each kind of channel has its own.
    `redelivers`: a frame received and not acknowledged comes again.
    `releases`: a delivery given to `release` comes again at once. A worker then leaves in the channel what comes before
    it has room for it; without, it takes in whatever comes.
    `receives_on`: the call behind a receive that ends with nothing goes on, and the next receive has what it brings.
    """

    max_frame_bytes: int
    max_publish_frames: int
    max_publish_bytes: int
    frame_overhead_bytes: int = 0
    max_receive_frames: int = 10
    multi_target: bool = True
    publishes_in_flight: int = 1
    background_receive: bool = False
    lanes: int | None = None
    lane_pool: str | None = None
    redelivers: bool = True
    releases: bool = False
    receives_on: bool = False

    def publish_size(self, frame_bytes: int) -> int:
        """Bytes that a frame of `frame_bytes` takes of `max_publish_bytes`."""
        return frame_bytes + self.frame_overhead_bytes


@dataclass(frozen=True, kw_only=True)
class StoreCapabilities:
    """What a store does.

    `conditional_put`: `put(..., if_absent=True)` is atomic among writers.
    `max_object_bytes`: the largest object, None if there is no limit worth naming.
    `latency_seconds`: about what one small request takes; who looks for an object again and again, waits as long.
    """

    conditional_put: bool = True
    max_object_bytes: int | None = None
    latency_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ComputeCapabilities:
    """The limits of the service that runs workers.

    `max_seconds`: longest life of a worker, None if not limited.
    `max_workers`: the most that may run at once. `memory_bytes`: what one worker has, None if not limited.
    `reports_exit`: `Compute.exits` tells which workers have ended, and how.
    `reports_starts`: a start that comes to nothing is told as the failure of the run, so a worker that is slow to begin
    is waited for as long as the run may last.
    """

    max_seconds: float | None = None
    max_workers: int | None = None
    memory_bytes: int | None = None
    reports_exit: bool = False
    reports_starts: bool = False
