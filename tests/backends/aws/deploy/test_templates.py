"""Templates and policies: what they hold, and the limits of CloudFormation and IAM."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch, fnmatchcase
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from hypothesis import given, settings
from hypothesis import strategies as st

import fsd_aws.deploy
from fsd_aws import AwsSettings
from fsd_aws.deploy.policies import (
    CLIENT_CALLS,
    WORKER_CALLS,
    deployer_policy,
    runner_policy,
    worker_policy,
)
from fsd_aws.deploy.templates import check_size, main_template, part_templates
from fsd_aws.deployment import VARIABLE, Deployment
from fsd_aws.queue import queue_capabilities, sqs_capabilities
from fsdcore.errors import ConfigError

CODE = "packages/ab.zip"
REGION, ACCOUNT = "eu-west-1", "123456789012"


def deployment(workers: int = 8, **settings: Any) -> Deployment:
    made = AwsSettings(**{"name": "demo", **settings})
    return Deployment.of(made, region=REGION, partition="aws", account=ACCOUNT, workers=workers)


def templates(of: Deployment, **settings: Any) -> dict[str, dict[str, Any]]:
    queues, topics = part_templates(of)
    return {of.stack: main_template(of, AwsSettings(**settings), CODE), **queues, **topics}


def resources(found: dict[str, dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    every = [one for template in found.values() for one in template["Resources"].values()]
    return [one["Properties"] for one in every if one["Type"] == f"AWS::{kind}"]


@pytest.mark.parametrize(("workers", "settings"), [(8, {}), (20, {}), (62, {}), (200, {}), (62, {"lanes": 3})])
def test_every_queue_hears_every_topic_within_the_limits_of_a_template(workers: int, settings: dict[str, int]) -> None:
    of = deployment(workers, **settings)
    check_size(of)
    found = templates(of)
    assert all(len(template["Resources"]) <= 500 for template in found.values())
    assert all(len(json.dumps(template)) <= 1_000_000 for template in found.values())
    names = {queue["QueueName"] for queue in resources(found, "SQS::Queue")}
    assert len(names) == workers * of.lanes + 1
    subscriptions = resources(found, "SNS::Subscription")
    assert len(subscriptions) == of.topics * of.lanes * workers
    ends = [(one["Endpoint"], *one["FilterPolicy"]["target"]) for one in subscriptions]
    expected = {
        (of.queue_arn(lane, rank), of.target(lane, rank)) for lane in range(of.lanes) for rank in range(workers)
    }
    assert set(ends) == expected
    assert all(one["RawMessageDelivery"] for one in subscriptions)


def test_growing_adds_to_stacks_and_moves_nothing() -> None:
    small, large = templates(deployment(8)), templates(deployment(20, lanes=2))
    for name in small.keys() - {"fsd-demo"}:
        kept = {key: body for key, body in small[name]["Resources"].items() if "Queue" in key or "Lane" in key}
        assert kept.items() <= large[name]["Resources"].items()


def test_the_function_is_what_the_settings_say() -> None:
    wanted: dict[str, Any] = {"memory_mb": 1024, "timeout_seconds": 60, "architecture": "arm64", "python": "3.13"}
    of = deployment(**wanted)
    found = templates(of, name="demo", **wanted)
    (function,) = resources(found, "Lambda::Function")
    assert (function["MemorySize"], function["Timeout"]) == (1024, 60)
    assert (function["Architectures"], function["Runtime"]) == (["arm64"], "python3.13")
    assert function["Code"] == {"S3Bucket": of.bucket, "S3Key": CODE}
    assert Deployment.from_json(function["Environment"]["Variables"][VARIABLE]) == of
    (invoke,) = resources(found, "Lambda::EventInvokeConfig")
    assert invoke["MaximumRetryAttempts"] == 0


def test_nothing_is_public_or_unencrypted() -> None:
    found = templates(deployment())
    (bucket,) = resources(found, "S3::Bucket")
    assert all(bucket["PublicAccessBlockConfiguration"].values())
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert all(queue["SqsManagedSseEnabled"] for queue in resources(found, "SQS::Queue"))
    policies = [*resources(found, "S3::BucketPolicy"), *resources(found, "SQS::QueuePolicy")]
    policies += resources(found, "SNS::TopicPolicy")
    assert len(policies) == 1 + 2 + 10
    for policy in policies:
        denied = [one for one in policy["PolicyDocument"]["Statement"] if one["Effect"] == "Deny"]
        assert [one["Condition"] for one in denied] == [{"Bool": {"aws:SecureTransport": "false"}}]


def test_runs_and_logs_do_not_stay() -> None:
    of = deployment(log_days=20, run_days=2)
    found = templates(of, log_days=20, run_days=2)
    (bucket,) = resources(found, "S3::Bucket")
    runs = bucket["LifecycleConfiguration"]["Rules"][0]
    assert (runs["Prefix"], runs["ExpirationInDays"]) == ("runs/", 2)
    (log,) = resources(found, "Logs::LogGroup")
    assert (log["LogGroupName"], log["RetentionInDays"]) == (of.log_group, 30)


def test_everything_that_can_have_a_tag_has_it() -> None:
    found = templates(deployment())
    for kind in ("S3::Bucket", "Lambda::Function", "IAM::Role", "Logs::LogGroup", "SNS::Topic", "SQS::Queue"):
        assert resources(found, kind)
        assert all({"Key": "fsd:deployment", "Value": "demo"} in one["Tags"] for one in resources(found, kind))


@pytest.mark.parametrize(
    ("workers", "settings", "problem"),
    [
        (201, {}, "201 workers on 1 lanes are 201 queues, and a topic takes 200"),
        (101, {"topic_bytes": 1 << 20}, "a topic takes 100 with topic_bytes = 1048576"),
        (200, {"topics": 90}, "90 topics and 200 queues need 18,000 filters, and an account has 10,000"),
    ],
)
def test_what_the_services_do_not_take_is_refused(workers: int, settings: dict[str, int], problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        check_size(deployment(workers, **settings))


def test_large_topics_are_told_so() -> None:
    assert all("MaximumMessageSize" not in one for one in resources(templates(deployment()), "SNS::Topic"))
    large = resources(templates(deployment(topic_bytes=1 << 20)), "SNS::Topic")
    assert {one["MaximumMessageSize"] for one in large} == {str(1 << 20)}


def test_queues_take_what_workers_send_them() -> None:
    of = deployment()
    most = queue_capabilities(of).max_publish_bytes, sqs_capabilities(of).max_publish_bytes
    queues = [one for one in resources(templates(of), "SQS::Queue") if one["QueueName"] != of.dead_letter_queue]
    assert {queue["MaximumMessageSize"] for queue in queues} == {1 << 20} == {max(most) + 1_024}


def test_a_directory_bucket_is_made_where_asked_for() -> None:
    of = deployment(express_zone="euw1-az1")
    (bucket,) = resources(templates(of, express_zone="euw1-az1"), "S3Express::DirectoryBucket")
    assert bucket["BucketName"] == of.express_bucket
    actions = {action for one in worker_policy(of)["Statement"] for action in one["Action"]}
    assert "s3express:CreateSession" in actions
    assert not any(action.startswith("s3:") for action in actions)


# Policies --------------------------------------------------------------------------------------------------

SERVICES = ("cloudformation", "lambda", "s3", "sns", "sqs", "sts")
PREFIXES = {"resourcegroupstaggingapi": "tag"}
# Everybody may ask who they are.
FREE = {"get_caller_identity"}


def operations(services: Iterable[str] = SERVICES) -> dict[str, set[str]]:
    """All methods by which the SDK calls the services, and the permissions that they may stand for."""
    session, found = botocore.session.get_session(), defaultdict[str, set[str]](set)
    for service in services:
        for name in session.get_service_model(service).operation_names:
            found[xform_name(name)].add(f"{PREFIXES.get(service, service)}:{name}")
    return found


def calls(folder: Path) -> Iterator[str]:
    """Every method that the modules of a folder, not of those below it, call or page through, by its name."""
    for module in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield node.func.attr
                if node.func.attr == "get_paginator":
                    yield ast.literal_eval(node.args[0])


def test_the_policies_name_the_calls_that_the_code_makes_and_no_others() -> None:
    # Queues are purged by tests alone.
    made = set(calls(Path(fsd_aws.__file__).parent)) & operations().keys() - {"purge_queue"}
    assert made == {call.partition(".")[2] for call in (*WORKER_CALLS, *CLIENT_CALLS)}


def test_a_worker_may_do_what_it_does_and_no_more() -> None:
    of = deployment(12)
    by_action = {action: one["Resource"] for one in worker_policy(of)["Statement"] for action in one["Action"]}
    assert set(by_action) == {*WORKER_CALLS.values(), "logs:CreateLogStream", "logs:PutLogEvents"}
    assert by_action["lambda:InvokeFunction"] == [of.function_arn]
    assert by_action["sns:Publish"] == ["arn:aws:sns:eu-west-1:123456789012:fsd-demo--*"]
    assert by_action["sqs:ReceiveMessage"] == ["arn:aws:sqs:eu-west-1:123456789012:fsd-demo--*"]
    read = ("leases", "plans", "runs")
    assert by_action["s3:GetObject"] == [f"arn:aws:s3:::{of.bucket}/{folder}/*" for folder in read]
    assert by_action["s3:PutObject"] == by_action["s3:DeleteObject"] == [f"arn:aws:s3:::{of.bucket}/runs/*"]
    assert by_action["s3:ListBucket"] == [f"arn:aws:s3:::{of.bucket}"]


def test_a_runner_may_not_touch_the_deployment_itself() -> None:
    of = deployment()
    statements = runner_policy(of)["Statement"]
    actions = {action for one in statements for action in one["Action"]}
    assert actions == {*WORKER_CALLS.values(), *CLIENT_CALLS.values(), "lambda:GetFunctionConfiguration"}
    (written,) = (one["Resource"] for one in statements if "s3:PutObject" in one["Action"])
    assert written == [f"arn:aws:s3:::{of.bucket}/{folder}/*" for folder in ("leases", "plans", "runs")]


def test_no_policy_of_a_user_reaches_beyond_the_deployment() -> None:
    for one in deployer_policy(deployment())["Statement"]:
        if one["Resource"] == ["*"]:
            # Subscriptions cannot be named in a policy.
            reading = ("Describe", "Get", "List", "SetSubscriptionAttributes", "Unsubscribe")
            assert all(action.partition(":")[2].startswith(reading) for action in one["Action"])
        else:
            assert all("fsd-demo" in resource for resource in one["Resource"])


def test_who_deploys_may_do_all_that_deploying_calls() -> None:
    known = operations((*SERVICES, "iam", "logs", "resourcegroupstaggingapi"))
    made = set(calls(Path(fsd_aws.deploy.__file__).parent)) & known.keys() - FREE
    assert {"create_stack", "delete_stack", "describe_stacks", "get_resources", "delete_objects"} <= made
    allowed = {action for one in deployer_policy(deployment())["Statement"] for action in one["Action"]}
    for call in made:
        assert any(fnmatch(permission, action) for permission in known[call] for action in allowed), call


names = st.from_regex(r"[a-c0-2](-?[a-c0-2]){0,3}", fullmatch=True)


@settings(deadline=None)
@given(names, names, st.integers(1, 150), st.integers(1, 3))
def test_nobody_reaches_a_deployment_whose_name_is_alike(a: str, b: str, workers: int, lanes: int) -> None:
    mine, other = deployment(workers, name=a, lanes=lanes), deployment(200, name=b, lanes=3, express_zone="euw1-az1")
    for policy in (deployer_policy(mine), runner_policy(mine), worker_policy(mine)):
        patterns = [one for statement in policy["Statement"] for one in statement["Resource"] if one != "*"]
        assert a == b or not [arn for arn in arns(other) if any(fnmatchcase(arn, one) for one in patterns)]
    deployed = [one for statement in deployer_policy(mine)["Statement"] for one in statement["Resource"]]
    assert all(any(fnmatchcase(arn, one) for one in deployed if one != "*") for arn in arns(mine))


def arns(of: Deployment) -> Iterator[str]:
    """Of all that a deployment has."""
    queues, topics = part_templates(of)
    yield from (of.arn("cloudformation", f"stack/{name}/0a-1b") for name in (of.stack, *queues, *topics))
    yield from (of.queue_arn(lane, rank) for lane in range(of.lanes) for rank in range(of.workers))
    yield from (of.topic_arn(shard) for shard in range(of.topics))
    yield from (of.dead_letter_queue_arn, of.function_arn, f"{of.log_group_arn}:log-stream:a")
    yield from (f"arn:aws:s3:::{of.bucket}", f"arn:aws:iam::{of.account}:role/{of.role}")
    if of.express_bucket:
        yield of.arn("s3express", f"bucket/{of.express_bucket}")


@pytest.mark.parametrize("size", [{}, {"lanes": 100, "workers": 2, "topics": 50}, {"workers": 200, "topics": 50}])
def test_policies_are_as_short_as_iam_takes_them(size: dict[str, int]) -> None:
    of = deployment(
        size.get("workers", 8), name="a" * 24, **{key: value for key, value in size.items() if key != "workers"}
    )
    for policy, most in ((worker_policy, 10_240), (runner_policy, 6_144), (deployer_policy, 6_144)):
        assert len(json.dumps(policy(of), separators=(",", ":"))) < most
    for name, policies in (("SQS::QueuePolicy", 8_192), ("S3::BucketPolicy", 20_480)):
        for one in resources(templates(of), name):
            assert len(json.dumps(one["PolicyDocument"])) < policies
