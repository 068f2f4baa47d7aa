"""Whole runs in virtual time: client, workers and channel go by one clock, and nothing waits for the machine."""

from __future__ import annotations

import pytest

from fsdcore.contracts.compute import Invocation
from fsdcore.errors import DeadlineError
from fsdcore.network.network import Network
from fsdcore.record.record import Record
from fsdcore.testing import CrashWorker, Latency, random_inputs, random_network
from fsdcore.testing.clock import VirtualClock
from tests.conftest import SessionMaker

WORKERS, LAYERS, HOP = 8, 120, 0.05


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network((32,) * (LAYERS + 1), density=0.2)


def test_all(make_session: SessionMaker, network: Network) -> None:
    x = random_inputs(12, 32)
    for channel in ("queue", "object"):
        for _ in range(2):
            clock = VirtualClock()
            session = make_session(Latency(HOP), workers=WORKERS, clock=clock, channel=channel)
            r = session.load(network).run(x).record
            print(channel, r.wall_seconds, clock.now(), r.seconds)
