"""What simulations are made of: plans that were rehearsed, shapes, and places to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from fsd_local import LocalBackend
from fsdcore.contracts.settings import RunSettings
from fsdcore.estimate import Setting, Target, load_model
from fsdcore.estimate.activity import activity_of
from fsdcore.estimate.bill import load_prices
from fsdcore.estimate.prepare import Sources, rehearsed, setting_for, target_for
from fsdcore.estimate.simulate import Billing, Shape, Work, shape_work, work_of
from fsdcore.network.network import Network
from fsdcore.partition import make_partition
from tests.estimate.conftest import LIMITS

WorkMaker: TypeAlias = Callable[..., Work]


def work_of_run(backend: LocalBackend, settings: RunSettings, network: Network, x: Any) -> Work:
    """The work of the run that `backend` would make, every message as it will be."""
    target = target_for(backend, "local", Sources())
    split = make_partition(network, settings.workers, settings.method)
    plan = rehearsed(backend.store, network, split, activity_of(network, x), x, settings, target)
    return work_of(plan, setting_for(plan, settings))


@pytest.fixture(scope="session")
def aws() -> Target:
    return Target(LIMITS, load_model("aws"), load_prices("aws/us-east-1"))


@pytest.fixture(scope="session")
def billing() -> Billing:
    return Billing(load_prices("aws/us-east-1"), 2 << 30)


@pytest.fixture(scope="session")
def make_work(aws: Target) -> WorkMaker:
    """Makes the work of a network of 512 neurons and 6 layers; `shape` and other keywords change it."""

    def make(channel: str = "queue", workers: int = 8, shape: dict[str, Any] | None = None, **setting: Any) -> Work:
        made = Shape(
            **{"neurons": 512, "layers": 6, "samples": 200, "densities": [0.2], "workers": workers, **(shape or {})}
        )
        usual = {"branching": 4, "batch_size": 200, "memory_bytes": 2 << 30, "in_flight": 1}
        return shape_work(made, aws, Setting(channel=channel, workers=workers, **{**usual, **setting}))

    return make


def with_limits(work: Work, **changes: Any) -> Work:
    """The same over a channel with other limits on how it receives or sends."""
    assert work.limits is not None
    return dataclasses.replace(work, limits=dataclasses.replace(work.limits, **changes))
