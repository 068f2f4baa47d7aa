"""Settings of the AWS backend."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from fsd_aws import AwsSettings
from fsd_aws.settings import own_python
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import ConfigError


def test_the_python_of_the_function_is_that_of_the_client() -> None:
    assert AwsSettings().python == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_there_is_no_region_by_default() -> None:
    assert AwsSettings().region == ""


def test_a_message_whose_delivery_was_lost_comes_again_while_it_is_waited_for() -> None:
    assert 2 * AwsSettings().visibility_timeout <= RunSettings().deadline_seconds


@pytest.mark.parametrize("name", ["a", "demo", "a-1", "x" * 24])
def test_names_that_fit_all_services_are_taken(name: str) -> None:
    assert AwsSettings(name=name).name == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a--b", "x" * 25, "é"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name must be"):
        AwsSettings(name=name)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("memory_mb", 0),
        ("timeout_seconds", 0),
        ("topics", 0),
        ("topic_bytes", (1 << 20) + 1),
        ("topic_bytes", 4_095),
        ("lanes", 0),
        ("visibility_timeout", 43_201),
        ("publishes_in_flight", 0),
        ("architecture", "mips"),
        ("payload", "pigeon"),
        ("python", "2.7"),
        ("express_zone", "eu-west-1a"),
    ],
)
def test_what_the_services_do_not_allow_is_refused_by_name(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        AwsSettings(**{setting: value})


@pytest.mark.parametrize(("setting", "value"), [("memory_mb", 32_768), ("timeout_seconds", 1_800)])
def test_what_lambda_may_offer_one_day_is_left_to_it(setting: str, value: Any) -> None:
    assert getattr(AwsSettings(**{setting: value}), setting) == value


@pytest.mark.parametrize(("client", "function"), [((3, 12), "3.12"), ((3, 15), "3.14"), ((4, 0), "3.14")])
def test_the_function_has_the_python_of_the_client_where_lambda_offers_it(
    client: tuple[int, int], function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", SimpleNamespace(major=client[0], minor=client[1]))
    assert own_python() == function
