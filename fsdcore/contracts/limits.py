"""The limits of a backend's parts, as data: no limit of any provider is written into the core."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ChannelCapabilities:
    """The limits of a channel.

    `max_frame_bytes`: the largest single frame, header included. A channel that encodes frames as text allows for that
    itself.
    `max_publish_frames`, `max_publish_bytes`: the most that one call carries; a frame counts with `publish_size` bytes.
    `frame_overhead_bytes`: what the service counts on top of each frame (attributes, envelope).
    `multi_target`: one publish may hold frames for several ranks. If not, the core packs per target.
    `max_receive_frames`: the most frames one receive returns.
    `publishes_in_flight`: how many sends are worth running at once; 1 means one after the other.
    `background_receive`: a thread that receives while the worker multiplies makes runs faster.
    `lanes`: how many runs the deployment can carry at once; None if there is no limit.
    `lane_pool`: channels of the same pool share their lanes; by default each kind of channel has its own.
    `redelivers`: a frame that was received and not acknowledged is delivered again.
    `releases`: a frame given to `release` is delivered again at once. A worker then leaves frames in the channel until
    it has room for them; without this, it takes in every frame at once.
    `receives_on`: a receive that returns nothing leaves its call open, and the next receive returns what that call
    brings.
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
    """The limits of a store.

    `conditional_put`: `put(..., if_absent=True)` is atomic among writers.
    `max_object_bytes`: the largest object, None if there is no limit worth naming.
    `latency_seconds`: about how long one small request takes, and how long to sleep between polls for an object.
    """

    conditional_put: bool = True
    max_object_bytes: int | None = None
    latency_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ComputeCapabilities:
    """The limits of the service that runs workers.

    `max_seconds`: the longest life of a worker, None if not limited.
    `max_workers`: the most that may run at once.
    `memory_bytes`: what one worker has, None if not limited.
    `reports_exit`: `Compute.exits` tells which workers have ended, and how.
    `reports_starts`: a start that fails is reported as a failure of the run. Others then wait for a slow worker as long
    as the run may last.
    """

    max_seconds: float | None = None
    max_workers: int | None = None
    memory_bytes: int | None = None
    reports_exit: bool = False
    reports_starts: bool = False
