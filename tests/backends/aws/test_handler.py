"""The entry point of the function: what it takes, what it refuses, and when a worker must end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fsd_aws import handler
from fsd_aws.deployment import VARIABLE
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.compute import Invocation
from fsdcore.errors import ConfigError, WireError
from tests.backends.aws.stubs import make_deployment
from tests.backends.aws.test_compute import INVOCATION

EVENT = msgspec.to_builtins(INVOCATION)


class Context:
    """What Lambda hands in: the milliseconds that are left."""

    def __init__(self, milliseconds: int = 60_000) -> None:
        self._milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self._milliseconds


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What workers were started with, in a fresh environment of a deployment for 4 workers."""
    calls: list[dict[str, Any]] = []

    def run_worker(backend: Any, invocation: Invocation, **options: Any) -> None:
        calls.append({"backend": backend, "invocation": invocation, **options})

    monkeypatch.setattr(handler, "run_worker", run_worker)
    monkeypatch.setenv(VARIABLE, make_deployment(workers=4).to_json())
    handler._environment.cache_clear()
    yield calls
    handler._environment.cache_clear()


def test_an_event_becomes_a_worker_of_the_deployment(started: list[dict[str, Any]]) -> None:
    assert handler.handle(EVENT, Context()) == {"run": INVOCATION.run, "rank": 3}
    assert started[0]["invocation"] == INVOCATION
    assert started[0]["backend"].deployment == make_deployment(workers=4)


def test_a_cold_start_counts_once(started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "_starts", itertools.chain([0.75], itertools.repeat(0.0)))
    for _ in range(3):
        handler.handle(EVENT, Context())
    assert [call["start_seconds"] for call in started] == [0.75, 0.0, 0.0]


def test_a_warm_environment_keeps_connections_and_plans(started: list[dict[str, Any]]) -> None:
    for _ in range(2):
        handler.handle(EVENT, Context())
    first, second = started
    assert first["backend"] is second["backend"]
    assert first["plans"] is second["plans"]


@pytest.mark.parametrize(("milliseconds", "seconds"), [(60_000, 56.0), (4_000, 2.0)])
def test_a_worker_ends_in_time_to_say_so(started: list[dict[str, Any]], milliseconds: int, seconds: float) -> None:
    before = SYSTEM_CLOCK.now()
    handler.handle(EVENT, Context(milliseconds))
    assert 0 <= started[0]["end"] - (before + seconds) <= SYSTEM_CLOCK.now() - before


@pytest.mark.parametrize(
    "event",
    [
        None,
        3,
        [],
        {},
        {"run": 1},
        EVENT | {"more": 1},
        EVENT | {"rank": "3"},
        EVENT | {"rank": 4},
        EVENT | {"rank": -1},
    ],
)
def test_anything_else_is_refused_in_one_line(started: list[dict[str, Any]], event: Any) -> None:
    with pytest.raises(WireError) as caught:
        handler.handle(event, Context())
    assert "\n" not in caught.value.message
    assert started == []


def test_more_workers_than_the_deployment_has_are_refused(started: list[dict[str, Any]]) -> None:
    with pytest.raises(WireError, match="rank 3 of 5 workers; the deployment has 4"):
        handler.handle(EVENT | {"settings": EVENT["settings"] | {"workers": 5}}, Context())
    assert started == []


def test_a_function_without_its_deployment_says_so(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=f"{VARIABLE} is not set; run: fsd deploy aws"):
        handler.handle(EVENT, Context())
