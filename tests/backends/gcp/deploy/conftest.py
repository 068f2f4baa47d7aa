"""For tests of deployments: backends on the local services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.management import Management
from fsd_gcp import GcpBackend, GcpSettings
from fsdcore.client.config import load_config

BackendMaker: TypeAlias = Callable[..., GcpBackend]


@pytest.fixture(scope="session")
def package_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture
def local_gcp(
    gcp_environment: dict[str, str], package_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The variables that lead `fsd` to the local services."""
    for name, value in {**gcp_environment, "XDG_CACHE_HOME": str(package_cache)}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def make_backend(local_gcp: pytest.MonkeyPatch) -> Iterator[BackendMaker]:
    """Makes backends with settings, and closes them. What they made is removed."""
    del local_gcp
    made: list[GcpBackend] = []

    def make(**settings: Any) -> GcpBackend:
        given = [f"{key}={value}" for key, value in {"name": "demo", **settings}.items()]
        loaded = load_config(None, backend="gcp", channel="queue", assignments=given)
        assert isinstance(loaded.backend_settings, GcpSettings)
        made.append(GcpBackend(loaded.backend_settings))
        return made[-1]

    yield make
    make().provisioner().destroy()
    for backend in made:
        backend.close()


@pytest.fixture
def management(make_backend: BackendMaker, functions: FunctionsServer) -> Iterator[Management]:
    """What the project is like. It can be used again by the time that what backends made is removed."""
    del make_backend
    yield functions.management
    functions.management.denied_projects.clear()
    functions.management.disabled_apis.clear()
    functions.management.forbidden_apis.clear()
