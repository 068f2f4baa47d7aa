"""Local AWS for the tests of this backend: one for each test process, empty for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from fsd_emulators.aws import LocalAws

Client: TypeAlias = Callable[..., Any]


@pytest.fixture(scope="session")
def running_aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """Local AWS, started once; tests use `aws`."""
    with LocalAws(tmp_path_factory.mktemp("aws"), retry_seconds=0.1) as local:
        yield local


def _led(local: LocalAws, monkeypatch: pytest.MonkeyPatch) -> LocalAws:
    for name, value in local.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    return local


@pytest.fixture
def aws(running_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> LocalAws:
    """Local AWS with nothing in it, and the variables that lead clients to it."""
    running_aws.check()
    running_aws.reset()
    return _led(running_aws, monkeypatch)


@pytest.fixture
def client(aws: LocalAws) -> Iterator[Client]:
    """Makes plain boto3 clients of a service, which try once; closes them after the test."""
    from boto3 import Session
    from botocore.config import Config

    made: list[Any] = []

    def make(service: str, **options: Any) -> Any:
        settings = {"retries": {"total_max_attempts": 1}, "read_timeout": 60, **options}
        made.append(Session().client(service, config=Config(**settings)))
        return made[-1]

    yield make
    for each in made:
        each.close()
