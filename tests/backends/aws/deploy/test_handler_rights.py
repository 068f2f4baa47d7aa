"""What AWS publishes that CloudFormation asks, against the deployer's policy; and a linter over all policies."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import pytest

from fsd_aws.deploy.policies import deployer_policy, runner_policy, worker_policy
from fsd_aws.deployment import Deployment
from fsd_emulators.aws.handler_rights import Asked, Place, asked, rights_table
from tests.backends.aws.deploy.test_templates import ACCOUNT, REGION, deployment, templates

with warnings.catch_warnings():
    # It leaves its data open.
    warnings.simplefilter("ignore", ResourceWarning)
    from parliament import analyze_policy_string

PLACE = Place("aws", REGION, ACCOUNT)
OPERATIONS = ("create", "update", "delete")


def express(workers: int = 2) -> Deployment:
    return deployment(workers, topics=2, express_zone="euw1-az1")


@cache
def table() -> dict[str, dict[str, Any]]:
    found = templates(express(), express_zone="euw1-az1")
    kinds = {one["Type"] for template in found.values() for one in template["Resources"].values()}
    return rights_table(kinds, REGION)


def resolved(value: Any, resources: dict[str, Any], of: Deployment) -> Any:
    """A property as handlers get it: references by name, and the one attribute that is used, the role's ARN."""
    if isinstance(value, list):
        return [resolved(one, resources, of) for one in value]
    if not isinstance(value, dict):
        return value
    if "Fn::GetAtt" in value:
        return f"arn:aws:iam::{ACCOUNT}:role/{of.role}"
    if "Ref" in value:
        named = resources[value["Ref"]]["Properties"]
        return next(named[key] for key in ("BucketName", "QueueName", "TopicName", "FunctionName") if key in named)
    return {key: resolved(one, resources, of) for key, one in value.items()}


def questions(of: Deployment) -> Iterator[Asked]:
    """All that IAM is asked while the deployment is made, changed and removed."""
    for template in templates(of, express_zone=of.express_zone).values():
        for one in template["Resources"].values():
            properties = resolved(one["Properties"], template["Resources"], of)
            for operation in OPERATIONS:
                yield from asked(table(), one["Type"], operation, PLACE, properties)


def allows(statements: list[dict[str, Any]], question: Asked) -> bool:
    return any(
        any(fnmatchcase(question.action.lower(), action.lower()) for action in one["Action"])
        and any(fnmatchcase(question.resource, resource) for resource in one["Resource"])
        for one in statements
    )


def test_who_deploys_may_do_all_that_handlers_ask_for() -> None:
    statements = deployer_policy(deployment(8))["Statement"]
    refused = {question for question in questions(express()) if not allows(statements, question)}
    assert refused == set()


def test_what_handlers_ask_for_is_known() -> None:
    """Of each type something, and what cannot be limited to a resource as such."""
    found = set(questions(express()))
    assert {question.action.partition(":")[0] for question in found} == {
        *("ec2", "iam", "lambda", "logs", "s3", "s3express", "sns", "sqs")
    }
    assert {Asked("sns:Unsubscribe", "*"), Asked("s3express:ListAllMyDirectoryBuckets", "*")} <= found
    assert Asked("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/fsd-demo-{REGION}") in found
    assert Asked("sqs:SetQueueAttributes", f"arn:aws:sqs:{REGION}:{ACCOUNT}:fsd-demo--0-1") in found
    # What no part of a template uses.
    assert not {question.action for question in found} & {"kms:Decrypt", "ec2:DescribeVpcs", "logs:PutResourcePolicy"}


@pytest.mark.parametrize("number", range(9))
def test_no_statement_of_the_deployers_policy_is_idle(number: int) -> None:
    statements = deployer_policy(deployment(8))["Statement"]
    calls = [
        Asked("cloudformation:CreateStack", f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/fsd-demo--topic-0/1"),
        *questions(express()),
    ]
    rest = [one for place, one in enumerate(statements) if place != number]
    assert not all(allows(rest, question) for question in calls)


@pytest.mark.parametrize("policy", [deployer_policy, runner_policy, worker_policy])
@pytest.mark.parametrize("of", [deployment(8), express()], ids=["s3", "express"])
def test_a_linter_of_policies_finds_nothing_wrong(policy: Any, of: Deployment) -> None:
    made = policy(of)
    # All of a service on a few resources means those actions that fit the resources; it takes that for a mistake.
    plain = [one for one in made["Statement"] if not any(action.endswith(":*") for action in one["Action"])]
    found = analyze_policy_string(json.dumps({**made, "Statement": plain}), ignore_private_auditors=True).findings
    # One action is newer than its data, and it takes no ARN with a slash for a bucket, which a directory bucket's has.
    known = ("cloudformation:DescribeEvents", "s3express:CreateSession")
    assert [str(one) for one in found if not any(name in str(one) for name in known)] == []
