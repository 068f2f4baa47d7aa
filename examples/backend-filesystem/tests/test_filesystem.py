"""The backend keeps the contracts: the suites of the framework, given something to work on."""

from pathlib import Path

import pytest

from fsd_backend_filesystem import FilesystemBackend, FilesystemSettings
from fsd_backend_filesystem.store import FilesystemStore
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.store import Store
from fsdcore.testing import BackendTests, ChannelTests, ComputeTests, StoreTests
from fsdcore.testing.channels import Opener
from fsdcore.testing.clock import VirtualClock


class TestStore(StoreTests):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FilesystemStore(tmp_path)


@pytest.mark.parametrize("kind", ["queue", "object"])
class TestChannel(ChannelTests):
    @pytest.fixture
    def opener(self, tmp_path: Path, kind: str) -> Opener:
        self.clock = VirtualClock()
        backend = FilesystemBackend(FilesystemSettings(str(tmp_path), visibility_timeout=0.2), self.clock)
        return lambda address: backend.open_channel(kind, address)


class TestBackend(ComputeTests, BackendTests):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return FilesystemBackend(FilesystemSettings(str(tmp_path)))
