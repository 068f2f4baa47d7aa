"""Who may do what: the least that workers, and the users who deploy and run, get along with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from backends.aws.deployment import Deployment

__all__ = ["CLIENT_CALLS", "WORKER_CALLS", "deployer_policy", "queue_patterns", "runner_policy", "worker_policy"]

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
# Those that only the client makes.
CLIENT_CALLS = {
    "cloudformation.describe_stacks": "cloudformation:DescribeStacks",
    "sqs.purge_queue": "sqs:PurgeQueue",
}


def worker_policy(deployment: Deployment) -> Statement:
    """What a worker may do: the calls of `WORKER_CALLS`, its log, and the report of an event that failed."""
    logs = _allow(("logs:CreateLogStream", "logs:PutLogEvents"), [f"{deployment.log_group_arn}:*"])
    dead = _allow(("sqs:SendMessage",), [deployment.dead_letter_queue_arn])
    return _policy([*_data(deployment, WORKER_CALLS.values(), _WORKER_READS, _WORKER_WRITES), logs, dead])


def runner_policy(deployment: Deployment) -> Statement:
    """What a user may do who runs on a deployment that is there."""
    calls = {*WORKER_CALLS.values(), *CLIENT_CALLS.values()} - {"cloudformation:DescribeStacks"}
    find = _allow(("cloudformation:DescribeStacks",), [_stacks(deployment, deployment.stack)])
    return _policy([*_data(deployment, calls, _EVERY_KEY, _EVERY_KEY), find])


def deployer_policy(deployment: Deployment) -> Statement:
    """What a user may do who makes, looks at and removes the deployment."""
    partition, name = deployment.partition, f"fsd-{deployment.name}"
    bucket, role = f"arn:{partition}:s3:::{deployment.bucket}", f"arn:{partition}:iam::{deployment.account}:role/"
    stacks = ("CreateStack", "DeleteStack", "DescribeEvents", "DescribeStacks", "UpdateStack")
    statements = [
        _allow(_of("cloudformation", stacks), [_stacks(deployment, name), _stacks(deployment, f"{name}-*")]),
        _allow(_READ_ALL, ["*"]),
        _allow(("s3:*",), [bucket, f"{bucket}/*"]),
        _allow(("lambda:*",), [deployment.function_arn, f"{deployment.function_arn}:*"]),
        _allow(("logs:*",), [deployment.log_group_arn, f"{deployment.log_group_arn}:*"]),
        _allow(("sns:*", "sqs:*"), [_arn(deployment, service, f"{name}-*") for service in ("sns", "sqs")]),
        _allow(_of("iam", _ROLE_ACTIONS), [f"{role}{deployment.role}"]),
    ]
    if deployment.express_bucket:
        statements.append(_allow(("s3express:*",), [_express(deployment)]))
    return _policy(statements)


# To find all stacks of a deployment, to be told of quotas, to find what bears the deployment's tag; and CloudFormation
# looks for the log group in a list of all.
_READ_ALL = (
    "cloudformation:DescribeStacks",
    "lambda:GetAccountSettings",
    "logs:DescribeLogGroups",
    "tag:GetResources",
)
_ROLE_ACTIONS = (
    "CreateRole",
    "DeleteRole",
    "DeleteRolePolicy",
    "GetRole",
    "GetRolePolicy",
    "ListAttachedRolePolicies",
    "ListRolePolicies",
    "PassRole",
    "PutRolePolicy",
    "TagRole",
    "UntagRole",
    "UpdateAssumeRolePolicy",
)


# Keys of objects: what workers read and write. The function's own code, ``packages/``, is not among them.
_WORKER_READS, _WORKER_WRITES, _EVERY_KEY = ("leases/*", "plans/*", "runs/*"), ("runs/*",), ("*",)


def _data(
    deployment: Deployment, actions: Iterable[str], reads: tuple[str, ...], writes: tuple[str, ...]
) -> Iterator[Statement]:
    """The actions on the deployment's function, topics, queues and objects, each on nothing else.

    Of a directory bucket there is one permission for all keys.
    """
    wanted = sorted(set(actions))
    topics = [deployment.topic_arn(shard) for shard in range(deployment.topics)]
    yield _allow(_in(wanted, "lambda:"), [deployment.function_arn])
    yield _allow(_in(wanted, "sns:"), topics)
    yield _allow(_in(wanted, "sqs:"), list(queue_patterns(deployment)))
    if deployment.express_bucket:
        yield _allow(("s3express:CreateSession",), [_express(deployment)])
        return
    bucket = f"arn:{deployment.partition}:s3:::{deployment.bucket}"
    reading, changing = ("s3:GetObject",), ("s3:DeleteObject", "s3:PutObject")
    yield _allow(("s3:ListBucket",), [bucket])
    yield _allow(reading, [f"{bucket}/{keys}" for keys in reads])
    yield _allow(changing, [f"{bucket}/{keys}" for keys in writes])


def queue_patterns(deployment: Deployment) -> Iterator[str]:
    """ARNs of all queues, ten in one by a ``?`` for the last digit of the rank.

    Not by ``*``: that would let through the queues of a deployment whose name begins with this one's.
    """
    for lane in range(deployment.lanes):
        one = deployment.queue_arn(lane, 0)[:-1]
        yield f"{one}?"
        for tens in range(1, (deployment.workers - 1) // 10 + 1):
            yield f"{one}{tens}?"


def _allow(actions: tuple[str, ...], resources: list[str]) -> Statement:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resources}


def _policy(statements: list[Statement]) -> Statement:
    return {"Version": "2012-10-17", "Statement": statements}


def _in(actions: list[str], service: str) -> tuple[str, ...]:
    return tuple(action for action in actions if action.startswith(service))


def _of(service: str, actions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{service}:{action}" for action in actions)


def _arn(deployment: Deployment, service: str, rest: str) -> str:
    return f"arn:{deployment.partition}:{service}:{deployment.region}:{deployment.account}:{rest}"


def _stacks(deployment: Deployment, name: str) -> str:
    return _arn(deployment, "cloudformation", f"stack/{name}/*")


def _express(deployment: Deployment) -> str:
    return _arn(deployment, "s3express", f"bucket/{deployment.express_bucket}")
