"""A deployment: its names, and how it travels."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_aws.deployment import Deployment
from fsdcore.errors import ConfigError
from tests.backends.aws.stubs import make_deployment

NAMES = st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,11}", fullmatch=True)
REGIONS = st.sampled_from(["eu-west-1", "ap-northeast-1", "us-gov-west-1"])


@given(
    name=NAMES, workers=st.integers(1, 1_000), lanes=st.integers(1, 100), payload=st.sampled_from(["attribute", "text"])
)
def test_a_deployment_comes_back_as_it_was_written(name: str, workers: int, lanes: int, payload: str) -> None:
    deployment = make_deployment(workers, name=name, lanes=lanes, payload=payload)
    assert Deployment.from_json(deployment.to_json()) == deployment


@given(name=NAMES, zone=st.sampled_from(["", "use1-az4", "apne1-az99"]))
def test_bucket_names_are_such_as_s3_takes(name: str, zone: str) -> None:
    deployment = make_deployment(name=name, express_zone=zone)
    for bucket in (deployment.bucket, deployment.data_bucket):
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket)
    assert deployment.data_bucket.endswith("--x-s3") == bool(zone)


def test_every_lane_and_rank_has_a_queue_of_its_own() -> None:
    deployment = make_deployment(workers=30, lanes=12)
    pairs = [(lane, rank) for lane in range(12) for rank in range(30)]
    assert len({deployment.queue_name(*pair) for pair in pairs}) == len(pairs)
    assert len({deployment.target(*pair) for pair in pairs}) == len(pairs)


def test_ranks_are_spread_over_the_topics() -> None:
    deployment = make_deployment(topics=3)
    assert [deployment.shard(rank) for rank in range(5)] == [0, 1, 2, 0, 1]


def test_addresses_name_region_and_account() -> None:
    deployment = make_deployment(name="demo")
    assert deployment.topic_arn(2) == "arn:aws:sns:eu-west-1:123456789012:fsd-demo--2"
    assert deployment.queue_arn(0, 3) == "arn:aws:sqs:eu-west-1:123456789012:fsd-demo--0-3"
    assert deployment.function_arn == "arn:aws:lambda:eu-west-1:123456789012:function:fsd-demo"
    url = deployment.queue_url(0, 3, "https://sqs.eu-west-1.amazonaws.com")
    assert url == "https://sqs.eu-west-1.amazonaws.com/123456789012/fsd-demo--0-3"


@pytest.mark.parametrize("text", ["", "{}", '{"name": 3}', "[1]", make_deployment().to_json()[:-1] + ', "later": 1}'])
def test_what_another_release_made_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"another release .* run: fsd deploy aws") as caught:
        Deployment.from_json(text)
    assert "\n" not in caught.value.message
