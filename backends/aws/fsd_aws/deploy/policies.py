"""Who may do what: the least that workers, and the users who deploy and run, get along with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from fsd_aws.deployment import Deployment

Statement: TypeAlias = dict[str, Any]

# The calls of the SDK that workers make, and the permission that each needs.
WORKER_CALLS = {
    "lambda.invoke": "lambda:InvokeFunction",
    "s3.delete_objects": "s3:DeleteObject",
    "s3.get_object": "s3:GetObject",
    "s3.head_object": "s3:GetObject",
    "s3.list_objects_v2": "s3:ListBucket",
    "s3.put_object": "s3:PutObject",
    "sns.publish_batch": "sns:Publish",
    "sqs.change_message_visibility_batch": "sqs:ChangeMessageVisibility",
    "sqs.delete_message_batch": "sqs:DeleteMessage",
    "sqs.receive_message": "sqs:ReceiveMessage",
    "sqs.send_message_batch": "sqs:SendMessage",
}
# Those that only the client makes, whose run looks for the deployment and at the account's limit.
CLIENT_CALLS = {
    "cloudformation.describe_stacks": "cloudformation:DescribeStacks",
    "lambda.get_account_settings": "lambda:GetAccountSettings",
}


def worker_policy(deployment: Deployment) -> Statement:
    """What a worker may do: the calls of `WORKER_CALLS`, its log, and the report of an event that failed."""
    logs = _allow(("logs:CreateLogStream", "logs:PutLogEvents"), [f"{deployment.log_group_arn}:*"])
    dead = _allow(("sqs:SendMessage",), [deployment.dead_letter_queue_arn])
    return _policy([*_data(deployment, _WORKER_READS, _WORKER_WRITES), logs, dead])


def runner_policy(deployment: Deployment) -> Statement:
    """What a user may do who runs on a deployment that is there, and asks for its status or the doctor.

    The function's code and the templates, which lie in the same bucket, cannot be replaced.
    """
    look = _allow(("lambda:GetFunctionConfiguration",), [deployment.function_arn])
    return _policy([*_data(deployment, _RUNNER_KEYS, _RUNNER_KEYS), look, _allow(tuple(CLIENT_CALLS.values()), ["*"])])


def deployer_policy(deployment: Deployment) -> Statement:
    """What a user may do who makes, looks at and removes the deployment, whatever its number of workers.

    CloudFormation makes resources with the rights of that user; what it asks for is in the schemas of their types.
    """
    partition = deployment.partition
    bucket, role = f"arn:{partition}:s3:::{deployment.bucket}", f"arn:{partition}:iam::{deployment.account}:role/"
    stacks = [deployment.arn("cloudformation", f"stack/{name}/*") for name in (deployment.stack, _parts(deployment))]
    parts = [deployment.arn(service, _parts(deployment)) for service in ("sns", "sqs")]
    return _policy(
        [
            _allow(_of("cloudformation", _STACK_ACTIONS), stacks),
            _allow(_READ_ALL, ["*"]),
            _allow(_of("sns", _SUBSCRIPTION_ACTIONS), ["*"]),
            _allow(("s3:*",), [bucket, f"{bucket}/*"]),
            _allow(("s3express:*",), [_any_express(deployment)]),
            _allow(("lambda:*",), [deployment.function_arn, f"{deployment.function_arn}:*"]),
            _allow(("logs:*",), [deployment.log_group_arn, f"{deployment.log_group_arn}:*"]),
            _allow(("sns:*", "sqs:*"), [*parts, deployment.dead_letter_queue_arn]),
            _allow(_of("iam", _ROLE_ACTIONS), [f"{role}{deployment.role}"]),
        ]
    )


_STACK_ACTIONS = (
    "CreateStack",
    "DeleteStack",
    "DescribeEvents",
    "DescribeStackEvents",
    "DescribeStacks",
    "UpdateStack",
)
# What has no resource to be allowed on: to find all stacks of a deployment, to be told of quotas, to find what bears
# the deployment's tag; and what CloudFormation looks for in a list of all.
_READ_ALL = (
    "cloudformation:DescribeStacks",
    "ec2:DescribeAvailabilityZones",
    "lambda:GetAccountSettings",
    "logs:DescribeIndexPolicies",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "s3express:ListAllMyDirectoryBuckets",
    "tag:GetResources",
)
# These cannot be limited to a topic, nor to a subscription.
_SUBSCRIPTION_ACTIONS = ("GetSubscriptionAttributes", "SetSubscriptionAttributes", "Unsubscribe")
_ROLE_ACTIONS = (
    "AttachRolePolicy",
    "CreateRole",
    "DeleteRole",
    "DeleteRolePolicy",
    "DetachRolePolicy",
    "GetRole",
    "GetRolePolicy",
    "ListAttachedRolePolicies",
    "ListRolePolicies",
    "PassRole",
    "PutRolePolicy",
    "TagRole",
    "UntagRole",
    "UpdateAssumeRolePolicy",
    "UpdateRole",
)


# Keys of objects: what workers, and users who run, read and write.
_WORKER_READS, _WORKER_WRITES = ("leases/*", "plans/*", "runs/*"), ("runs/*",)
_RUNNER_KEYS = ("leases/*", "plans/*", "runs/*")


def _data(deployment: Deployment, reads: Iterable[str], writes: Iterable[str]) -> Iterator[Statement]:
    """The calls of `WORKER_CALLS` on the deployment's function, topics, queues and objects, each on nothing else.

    Of a directory bucket there is one permission for all keys.
    """
    wanted = sorted(set(WORKER_CALLS.values()))
    yield _allow(_in(wanted, "lambda:"), [deployment.function_arn])
    for service in ("sns", "sqs"):
        yield _allow(_in(wanted, f"{service}:"), [deployment.arn(service, _parts(deployment))])
    if deployment.express_bucket:
        yield _allow(("s3express:CreateSession",), [deployment.arn("s3express", f"bucket/{deployment.express_bucket}")])
        return
    bucket = f"arn:{deployment.partition}:s3:::{deployment.bucket}"
    yield _allow(("s3:ListBucket",), [bucket])
    yield _allow(("s3:GetObject",), [f"{bucket}/{keys}" for keys in reads])
    yield _allow(("s3:DeleteObject", "s3:PutObject"), [f"{bucket}/{keys}" for keys in writes])


def _parts(deployment: Deployment) -> str:
    """All queues of runs, topics and stacks of the deployment but the main one, and those of no other."""
    return deployment.part_name("*")


def _any_express(deployment: Deployment) -> str:
    """The deployment's directory bucket in whatever zone: the one that is there may be of another than the settings."""
    return deployment.arn("s3express", f"bucket/{deployment.express_pattern}")


def _allow(actions: tuple[str, ...], resources: list[str]) -> Statement:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resources}


def _policy(statements: list[Statement]) -> Statement:
    return {"Version": "2012-10-17", "Statement": statements}


def _in(actions: list[str], service: str) -> tuple[str, ...]:
    return tuple(action for action in actions if action.startswith(service))


def _of(service: str, actions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{service}:{action}" for action in actions)
