"""The local backend: for tests, for development, and for one machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from fsd_local.queue import LocalQueueChannel, QueueService
from fsd_local.stores import DirectoryStore, MemoryStore
from fsdcore.clock import SYSTEM_CLOCK, Clock
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Channel
from fsdcore.contracts.compute import Compute
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.contracts.settings import check_settings
from fsdcore.contracts.store import Store
from fsdcore.errors import ConfigError
from fsdcore.messages.frames import HEADER_BYTES
from fsdcore.messages.object_channel import ObjectChannel, object_channel_capabilities
from fsdcore.worker.threads import ThreadCompute

# In memory a look at the store costs next to nothing, so the object channel may look often.
_LONGEST_PAUSE = 0.005


@dataclass(frozen=True)
class LocalSettings:
    """Settings of the local backend; the limits default to those of SNS and SQS.

    - `path`: a directory for the store, so that plans outlive the process; in memory if empty
    - `visibility_timeout`: seconds until a frame that was not acknowledged comes again
    - `max_frame_bytes`, `max_publish_frames`, `max_publish_bytes`, `max_receive_frames`: limits of the queue
    - `shuffle_seed`: deliver in an order made from this seed; negative for the order of arrival
    - `publishes_in_flight`: how many publishes a worker has under way at once
    - `background_receive`: receive in a thread of its own
    - `lanes`: how many runs may be under way at once
    """

    path: str = ""
    visibility_timeout: Annotated[float, Meta(gt=0)] = 30.0
    max_frame_bytes: int = 256 * 1024
    max_publish_frames: Annotated[int, Meta(ge=1)] = 10
    max_publish_bytes: int = 256 * 1024
    max_receive_frames: Annotated[int, Meta(ge=1)] = 10
    shuffle_seed: int = -1
    publishes_in_flight: Annotated[int, Meta(ge=1)] = 1
    background_receive: bool = False
    lanes: Annotated[int, Meta(ge=1)] = 64

    def __post_init__(self) -> None:
        check_settings(self)
        if "\0" in self.path:
            raise ConfigError("path must be the name of a directory: there is a zero character in it")
        if self.path and Path(self.path).exists() and not Path(self.path).is_dir():
            raise ConfigError(f"path must be a directory, {self.path} is none")
        if self.max_frame_bytes <= HEADER_BYTES:
            raise ConfigError(f"max_frame_bytes must be above {HEADER_BYTES}, the header, not {self.max_frame_bytes}")
        if self.max_publish_bytes < self.max_frame_bytes:
            raise ConfigError("max_publish_bytes must be at least max_frame_bytes")

    def limits(self) -> ChannelCapabilities:
        """The limits of the queue."""
        return ChannelCapabilities(
            releases=True,
            max_frame_bytes=self.max_frame_bytes,
            max_publish_frames=self.max_publish_frames,
            max_publish_bytes=self.max_publish_bytes,
            max_receive_frames=self.max_receive_frames,
            publishes_in_flight=self.publishes_in_flight,
            background_receive=self.background_receive,
            lanes=self.lanes,
        )


class LocalBackend(Backend):
    """Workers are threads of this process."""

    name = "local"
    summary = "threads of this process, queues in memory, objects in memory or in a directory"
    settings_type = LocalSettings

    def __init__(self, settings: Any = None, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(settings, clock)
        self._store: Store = DirectoryStore(self.settings.path) if self.settings.path else MemoryStore()
        self._compute = ThreadCompute(self)
        self._queues = QueueService(
            self.settings.limits(), self.settings.visibility_timeout, clock, self.settings.shuffle_seed
        )

    @property
    def store(self) -> Store:
        return self._store

    @property
    def compute(self) -> Compute:
        return self._compute

    def open_channel(self, kind: str, address: Address) -> Channel:
        if self.check_channel(kind) == "object":
            return ObjectChannel(self.store, address, _LONGEST_PAUSE)
        return LocalQueueChannel(self._queues, address)

    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        if self.check_channel(kind) == "object":
            return object_channel_capabilities(self.store.capabilities)
        return self._queues.limits

    def close(self) -> None:
        self._compute.close()
        self._store.close()
