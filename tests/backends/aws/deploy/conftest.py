"""For tests of deployments: local AWS with and without policies, and a small package in place of the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fsd_aws import AwsBackend, AwsSettings
from fsd_aws.deploy import provisioner
from fsd_emulators.aws import LocalAws
from fsdcore.deploy import Package
from fsdcore.record.observer import Observer

BackendMaker = Callable[..., AwsBackend]

ACCOUNT, REGION = "000000000000", "us-east-1"
_EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


@pytest.fixture
def strict_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAws]:
    """An empty account in which users may do what their policies say; the variables of its owner are set."""
    with LocalAws(tmp_path, region=REGION, enforce=True, retry_seconds=0.1) as local:
        for name, value in local.environment.items():
            monkeypatch.setenv(name, value)
        yield local


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


@pytest.fixture
def make_backend(aws: LocalAws, package: Package) -> Iterator[BackendMaker]:
    """Makes backends with settings, and closes them."""
    made: list[AwsBackend] = []

    def make(**settings: Any) -> AwsBackend:
        made.append(AwsBackend(AwsSettings(**{"name": "demo", **settings})))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
