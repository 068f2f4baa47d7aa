"""Deployments where AWS takes its time: stale looks, filters that are not in force, names that are not free yet."""

from __future__ import annotations

import time

import pytest

from fsd_aws.deploy import probe, stacks
from fsd_aws.deploy.probe import Pair, new_pairs
from fsd_emulators.aws import LocalAws
from fsdcore.errors import DeploymentError
from fsdcore.faults import Refuse
from tests.backends.aws.deploy.conftest import BackendMaker
from tests.backends.aws.stubs import make_deployment


class Notices:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        del task, done, total

    def notice(self, text: str) -> None:
        self.lines.append(text)


def test_a_stale_look_is_not_taken_for_the_end(make_backend: BackendMaker, aws: LocalAws) -> None:
    aws.set_lateness(stacks=1.5)
    backend = make_backend(topics=1)
    assert backend.provisioner().deploy(2).ready
    assert backend.provisioner().deploy(3).workers == 3
    assert backend.provisioner().destroy().left == ()
    assert backend.provisioner().status().problem.startswith("none in")


def test_a_deploy_ends_when_filters_are_in_force(make_backend: BackendMaker, aws: LocalAws) -> None:
    aws.set_lateness(filters=6.0)
    backend, heard = make_backend(topics=2), Notices()
    backend.observer = heard
    began = time.monotonic()
    assert backend.provisioner().deploy(3).ready
    assert time.monotonic() - began >= 6.0
    (line,) = (line for line in heard.lines if "filters of new subscriptions" in line)
    assert "0 of 6 messages do not arrive and" in line
    # What is in force stays so.
    heard.lines.clear()
    assert backend.provisioner().deploy(3).ready
    assert heard.lines == []


def test_filters_that_never_take_effect_are_told(
    make_backend: BackendMaker, aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.set_lateness(filters=600.0)
    monkeypatch.setattr(probe, "_LONGEST_SECONDS", 1.0)
    with pytest.raises(DeploymentError, match=r"filters of topics have not taken effect in .* run the command again"):
        make_backend(topics=1).provisioner().deploy(2)


def test_a_name_that_was_given_up_is_waited_for(
    make_backend: BackendMaker, aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "_NAME_SECONDS", 2.0)
    aws.set_lateness(names=3.0)
    backend, heard = make_backend(topics=1), Notices()
    backend.provisioner().deploy(2)
    assert backend.provisioner().destroy().left == ()
    backend.observer = heard
    assert backend.provisioner().deploy(2).ready
    assert any("a name was given up a moment ago" in line for line in heard.lines)


def test_a_name_that_stays_taken_is_told(
    make_backend: BackendMaker, aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "_NAME_SECONDS", 0.1)
    backend = make_backend(topics=1)
    backend.provisioner().deploy(2)
    aws.set_lateness(names=600.0)
    backend.provisioner().destroy()
    with pytest.raises(DeploymentError, match="wait 60 seconds after deleting a queue"):
        backend.provisioner().deploy(2)


def test_the_reason_is_told_where_operations_have_no_events(
    make_backend: BackendMaker, aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.set_faults(Refuse("*:DescribeEvents", error="AccessDenied", status=403))
    monkeypatch.setattr("fsd_aws.deploy.templates._DEAD_SECONDS", 99 * 86_400)
    with pytest.raises(DeploymentError, match=r"could not be made, it is \w+: DeadEvents: "):
        make_backend(topics=1).provisioner().deploy(2)


@pytest.mark.parametrize(("setting", "value"), [("memory_mb", 20_000), ("timeout_seconds", 1_800)])
def test_what_lambda_does_not_take_is_told_in_its_words(make_backend: BackendMaker, setting: str, value: int) -> None:
    with pytest.raises(DeploymentError, match=f"Function: .*'{value}' .* failed to satisfy constraint") as caught:
        make_backend(topics=1, **{setting: value}).provisioner().deploy(2)
    assert "\n" not in caught.value.message


def test_only_new_subscriptions_are_probed() -> None:
    small, large = make_deployment(2, topics=1), make_deployment(3, topics=2)
    assert new_pairs(small, None) == [Pair(0, 0, 0), Pair(0, 0, 1)]
    assert new_pairs(large, small) == [Pair(0, 0, 2), Pair(1, 0, 0), Pair(1, 0, 1), Pair(1, 0, 2)]
    assert new_pairs(small, large) == []
