"""Plans to forecast, small and made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pytest

from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.estimate import Forecaster, Target, load_model
from fsdcore.estimate.activity import Activity, activity_of
from fsdcore.estimate.bill import load_prices
from fsdcore.estimate.prepare import forecaster_for
from fsdcore.network.network import Network
from fsdcore.partition import make_partition
from fsdcore.testing import random_inputs, random_network

TargetMaker: TypeAlias = Callable[..., Target]

# As SNS and SQS, and as an object store.
LIMITS = {
    "queue": ChannelCapabilities(max_frame_bytes=262_144, max_publish_frames=10, max_publish_bytes=262_144),
    "object": ChannelCapabilities(max_frame_bytes=1 << 30, max_publish_frames=1 << 20, max_publish_bytes=1 << 40),
}


@pytest.fixture(scope="session")
def make_target() -> TargetMaker:
    """Makes targets; `model` and `prices` are names."""

    def make(model: str = "aws", prices: str = "aws/us-east-1", options: Mapping[str, str] | None = None) -> Target:
        priced = load_prices(prices)
        return Target(LIMITS, load_model(model), priced, priced.options(dict(options or {})))

    return make


@pytest.fixture(scope="session")
def network() -> Network:
    return random_network((60, 80, 70, 80, 40), density=0.2)


@pytest.fixture(scope="session")
def inputs() -> Any:
    return random_inputs(200, 60)


@pytest.fixture(scope="session")
def activity(network: Network, inputs: Any) -> Activity:
    return activity_of(network, inputs)


@pytest.fixture(scope="session")
def plans(network: Network, activity: Activity, make_target: TargetMaker) -> dict[int, Forecaster]:
    """By workers, on AWS."""
    target = make_target()
    return {n: forecaster_for(network, make_partition(network, n, "block"), activity, target) for n in (1, 2, 4, 7)}
