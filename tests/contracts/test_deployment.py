"""What deployments of all backends have in common."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.contracts.backend import DeploymentFacts
from fsdcore.errors import ConfigError


class Raft(DeploymentFacts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    command = "fsd deploy raft"

    rivers: tuple[str, ...]


@dataclass(frozen=True)
class RaftSettings:
    name: str = "demo"
    region: str = "delta"
    lanes: int = 2
    memory_mb: int = 512
    timeout_seconds: int = 60
    publishes_in_flight: int = 4
    unused: str = "never"


@given(st.text(), st.integers(1, 1 << 40), st.lists(st.text()).map(tuple))
def test_a_deployment_comes_back_as_it_was_written(name: str, workers: int, rivers: tuple[str, ...]) -> None:
    made = Raft.of(RaftSettings(name=name), workers=workers, rivers=rivers)
    assert (made.name, made.region, made.workers, made.rivers) == (name, "delta", workers, rivers)
    assert Raft.from_json(made.to_json()) == Raft.told(made.to_json()) == made


def test_what_is_given_goes_before_the_settings() -> None:
    assert Raft.of(RaftSettings(), workers=1, rivers=(), region="here").region == "here"


@pytest.mark.parametrize("text", ["{}", "raft", '{"name": "demo", "workers": 1, "new": 2}'])
def test_what_another_release_made_is_refused_with_the_command(text: str) -> None:
    with pytest.raises(ConfigError, match=r"made by another release .*; run: fsd deploy raft$"):
        Raft.from_json(text)
    assert Raft.told(text) is None


def test_nothing_is_told_by_nothing() -> None:
    assert Raft.told("") is None
    assert Raft.told(None) is None


def test_the_settings_it_was_made_with_follow_from_it() -> None:
    given = RaftSettings(name="far", region="sea", lanes=5, memory_mb=1, timeout_seconds=2, publishes_in_flight=3)
    assert Raft.of(given, workers=1, rivers=()).settings(RaftSettings) == given
