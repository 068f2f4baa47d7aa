"""The backend: a name, settings, and the three parts."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path

from fsd_backend_filesystem.channel import LIMITS, SpoolChannel
from fsd_backend_filesystem.compute import ProcessCompute
from fsd_backend_filesystem.settings import FilesystemSettings
from fsd_backend_filesystem.store import CAPABILITIES, FilesystemStore
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Channel
from fsdcore.contracts.compute import Compute
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.contracts.store import Store
from fsdcore.errors import ConfigError
from fsdcore.files import settled
from fsdcore.messages.object_channel import ObjectChannel, object_channel_capabilities


class FilesystemBackend(Backend):
    """Workers are processes of this machine; all they share is a directory."""

    name = "filesystem"
    summary = "processes of this machine that share a directory"
    settings_type = FilesystemSettings

    @cached_property
    def _root(self) -> Path:
        """The directory, made when first asked for: to look at a backend's limits must leave nothing behind."""
        root = settled(self.settings.root)
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            (root / "objects").mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"root {str(root)!r} cannot be used: {error.strerror}") from error
        return root

    @cached_property
    def _store(self) -> FilesystemStore:
        return FilesystemStore(self._root / "objects")

    @cached_property
    def _compute(self) -> ProcessCompute:
        # Workers are told the whole path: they need not be where the client is.
        return ProcessCompute(dataclasses.replace(self.settings, root=str(self._root)))

    @property
    def store(self) -> Store:
        return self._store

    @property
    def compute(self) -> Compute:
        return self._compute

    def open_channel(self, kind: str, address: Address) -> Channel:
        if self.check_channel(kind) == "object":
            return ObjectChannel(self._store, address)
        return SpoolChannel(self._root / "queues", address, self.settings.visibility_timeout)

    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        return object_channel_capabilities(CAPABILITIES) if self.check_channel(kind) == "object" else LIMITS
