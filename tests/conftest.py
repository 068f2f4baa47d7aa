"""Fixtures shared by all tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import hypothesis
import pytest

from fsd_local import LocalBackend, LocalSettings
from fsdcore.client.session import Session
from fsdcore.clock import SYSTEM_CLOCK, Clock
from fsdcore.contracts.settings import RunSettings
from fsdcore.faults import Fault
from fsdcore.kernels import KERNELS
from fsdcore.testing import FaultyBackend

SessionMaker: TypeAlias = Callable[..., Session]

# How long one example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("fsd", deadline=None)
hypothesis.settings.load_profile("fsd")


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> Iterator[None]:
    """A test run in the background inherits that interrupts are ignored; tests of Ctrl-C need them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kernel", default="auto", help="what multiplies where a test does not say: " + ", ".join(KERNELS)
    )


@pytest.fixture
def make_session(request: pytest.FixtureRequest) -> Iterator[SessionMaker]:
    """Makes local sessions, with faults and by a clock if asked, and closes them after the test."""
    sessions: list[Session] = []

    def make(*faults: Fault, settings: LocalSettings | None = None, clock: Clock = SYSTEM_CLOCK, **run: Any) -> Session:
        run = {"method": "block", "deadline_seconds": 20.0, "kernel": request.config.getoption("kernel"), **run}
        local = LocalBackend(settings, clock)
        backend = FaultyBackend(local, *faults) if faults else local
        sessions.append(Session(backend, RunSettings(**run)))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()
