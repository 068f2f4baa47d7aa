"""The backend: a name, settings, and the three parts."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fsd_backend_filesystem.channel import LIMITS, SpoolChannel
from fsd_backend_filesystem.compute import ProcessCompute
from fsd_backend_filesystem.store import FilesystemStore
from fsdcore.backend import Backend
from fsdcore.capabilities import ChannelCapabilities
from fsdcore.channel import Address, Channel
from fsdcore.compute import Compute
from fsdcore.errors import ConfigError
from fsdcore.object_channel import ObjectChannel, object_channel_capabilities
from fsdcore.store import Store


@dataclass(frozen=True)
class FilesystemSettings:
    """Settings of the backend; `README.md` says what they mean."""

    path: str = "fsd-files"
    visibility_timeout: float = 30.0

    def __post_init__(self) -> None:
        if not (self.path and self.visibility_timeout > 0):
            raise ConfigError(f"path must name a directory and visibility_timeout be above 0 seconds: {self}")


class FilesystemBackend(Backend):
    """Workers are processes of this machine."""

    name = "filesystem"
    summary = "processes of this machine that share a directory"
    settings_type = FilesystemSettings

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        root = Path(self.settings.path).expanduser().absolute()
        self._spool = root / "spool"
        try:
            (root / "objects").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"path {self.settings.path!r} cannot be used: {error}") from error
        self._store = FilesystemStore(root / "objects")
        # Workers may start elsewhere: they are told the whole path.
        self._compute = ProcessCompute(msgspec.json.encode(dataclasses.replace(self.settings, path=str(root))))

    @property
    def store(self) -> Store:
        return self._store

    @property
    def compute(self) -> Compute:
        return self._compute

    def open_channel(self, kind: str, address: Address) -> Channel:
        if self.check_channel(kind) == "object":
            return ObjectChannel(self._store, address)
        return SpoolChannel(self._spool, address, self.settings.visibility_timeout)

    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        if self.check_channel(kind) == "object":
            return object_channel_capabilities(self._store.capabilities)
        return LIMITS
