"""Local AWS for tests of deployments: ministack, new for each test."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.aws import AwsBackend, AwsSettings
from backends.aws.deploy import provisioner
from backends.aws.emulator.ministack import find_ministack
from fsdcore.errors import MissingExtraError
from fsdcore.events import Observer
from fsdcore.packaging import Package
from fsdcore.testing.processes import HOST, ServerProcess, free_port, http_ready

BackendMaker = Callable[..., AwsBackend]

ACCOUNT, REGION = "000000000000", "eu-west-1"


@contextmanager
def running(folder: Path, enforce: bool) -> Iterator[str]:
    """The address of a ministack; with `enforce` it keeps to the policies of users and resources."""
    try:
        program = find_ministack()
    except MissingExtraError as error:
        pytest.skip(error.message)
    (folder / "tmp").mkdir()
    url = f"http://{HOST}:{(port := free_port())}"
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder / "tmp"), "BIND_HOST": HOST}
    environ |= {"AUTH": str(enforce).lower(), "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    environ |= {"GATEWAY_PORT": str(port), "EDGE_PORT": str(port), "LOG_LEVEL": "WARNING", "MINISTACK_REGION": REGION}
    ready = http_ready(f"{url}/_ministack/health")
    with ServerProcess("ministack", [program], ready=ready, log=folder / "log", environ=environ):
        yield url


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a ministack that allows everything."""
    with running(tmp_path_factory.mktemp("ministack"), enforce=False) as url:
        yield url


@pytest.fixture
def strict_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty account in which users may do what their policies say; the variables of its owner are set."""
    folder = tmp_path / "strict"
    folder.mkdir()
    with running(folder, enforce=True) as url:
        point_to(url, monkeypatch)
        yield url


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that lead the SDK to local AWS."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.fixture
def aws(ministack: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty account: the variables that lead the SDK there are set. Returns the address."""
    reset = urllib.request.Request(f"{ministack}/_ministack/reset", method="POST")
    with urllib.request.urlopen(reset, timeout=30) as answer:
        assert answer.status == 200
    point_to(ministack, monkeypatch)
    return ministack


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A small package in place of the real one, whose building has tests of its own."""
    path = tmp_path / "package.zip"
    path.write_bytes(_EMPTY_ZIP)
    made = Package(path, "ab" * 32, len(_EMPTY_ZIP), 0, ("a notice",))

    def build(settings: AwsSettings, observer: Observer) -> Package:
        del settings, observer
        return made

    monkeypatch.setattr(provisioner, "lambda_package", build)
    return made


_EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


@pytest.fixture
def make_backend(aws: str, package: Package) -> Iterator[BackendMaker]:
    """Makes backends with settings, and closes them."""
    made: list[AwsBackend] = []

    def make(**settings: Any) -> AwsBackend:
        made.append(AwsBackend(AwsSettings(**{"name": "demo", **settings})))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
