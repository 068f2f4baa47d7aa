"""The local backend passes every suite."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsd_local import LocalBackend, LocalSettings
from fsd_local.stores import DirectoryStore, MemoryStore
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.store import Store
from fsdcore.errors import ConfigError, StoreError
from fsdcore.testing import BackendTests, ChannelTests, ComputeTests, StoreTests
from fsdcore.testing.channels import Opener
from fsdcore.testing.clock import VirtualClock


class TestMemoryStore(StoreTests):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestDirectoryStore(StoreTests):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        self.root = tmp_path / "store"
        return DirectoryStore(self.root)

    def peek(self, store: Store, key: str) -> bytes | None:
        file = self.root / f"{key}.object"
        return file.read_bytes() if file.exists() else None

    def test_objects_outlive_the_store(self, store: Store) -> None:
        store.put("a/b", b"data")
        assert DirectoryStore(self.root).get("a/b") == b"data"

    def test_unfinished_writes_are_not_listed(self, store: Store) -> None:
        store.put("a/b", b"data")
        (self.root / "a" / ".unfinished-x").write_bytes(b"half")
        assert store.list("") == ["a/b"]

    def test_a_root_that_is_a_file_is_a_store_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="file"):
            DirectoryStore(tmp_path / "file").put("k", b"")

    @pytest.mark.parametrize("umask", [0o022, 0o077])
    def test_the_umask_says_who_may_read_files(self, store: Store, umask: int) -> None:
        before = os.umask(umask)
        try:
            store.put("a", b"data")
            store.put("b", b"data", if_absent=True)
        finally:
            os.umask(before)
        for name in ("a", "b"):
            assert stat.S_IMODE((self.root / f"{name}.object").stat().st_mode) == 0o666 & ~umask


class TestQueueChannel(ChannelTests):
    @pytest.fixture
    def opener(self) -> Opener:
        self.clock = VirtualClock()
        backend = LocalBackend(LocalSettings(visibility_timeout=0.2, shuffle_seed=1), self.clock)
        return lambda address: backend.open_channel("queue", address)


class TestObjectChannel(ChannelTests):
    @pytest.fixture
    def opener(self) -> Opener:
        self.clock = VirtualClock()
        backend = LocalBackend(clock=self.clock)
        return lambda address: backend.open_channel("object", address)


class TestLocalBackend(ComputeTests, BackendTests):
    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        backend = LocalBackend()
        yield backend
        backend.close()


class TestLocalBackendOnADirectory(ComputeTests, BackendTests):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        settings = LocalSettings(path=str(tmp_path), publishes_in_flight=3, background_receive=True)
        backend = LocalBackend(settings)
        yield backend
        backend.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visibility_timeout": 0}, "visibility_timeout must be above 0"),
        ({"max_frame_bytes": 10}, "max_frame_bytes must be above"),
        ({"max_publish_bytes": 100}, "at least max_frame_bytes"),
        ({"lanes": 0}, "lanes must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LocalSettings(**settings)


@pytest.mark.parametrize("path", ["a\0b", "/dev/null"])
def test_a_path_that_is_no_directory_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="path must be"):
        LocalSettings(path=path)
