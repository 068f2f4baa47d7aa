"""What stacks do not remove: the objects of a bucket, and what bears the deployment's tag and is in no stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import botocore.exceptions as sdk

from fsd_aws.clients import Clients
from fsd_aws.deploy.stacks import asking
from fsd_aws.deploy.templates import TAG
from fsd_aws.errors import error_code
from fsdcore.errors import DeploymentError, FsdError

_GONE = frozenset(
    {
        "404",
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchBucket",
        "NoSuchEntity",
        "NotFound",
        "NotFoundException",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
    }
)


def delete_objects(clients: Clients, bucket: str, prefix: str = "", keep: frozenset[str] = frozenset()) -> int:
    """Remove the objects below `prefix` but for `keep`, and return how many; none if there is no such bucket."""
    s3, deleted = clients.client("s3"), 0
    with asking(clients, f"emptying bucket {bucket}"):
        try:
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                keys = [found["Key"] for found in page.get("Contents", ()) if found["Key"] not in keep]
                deleted += _delete_page(s3, bucket, keys)
        except sdk.ClientError as error:
            if error_code(error) not in _GONE:
                raise
    return deleted


def _delete_page(s3: Any, bucket: str, keys: list[str]) -> int:
    if not keys:
        return 0
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})
    for error in answer.get("Errors", ()):
        raise DeploymentError(f"object {error.get('Key')} in {bucket} cannot be removed: {error.get('Message')}")
    return len(keys)


def remove_tagged(clients: Clients, name: str) -> tuple[list[str], list[str]]:
    """Remove what bears the tag of deployment `name`: what was removed, and what was left and why.

    For some time the service tells of what is gone already; that is in neither list.
    """
    removed: list[str] = []
    left: list[str] = []
    for arn in _tagged(clients, name):
        try:
            if _remove(clients, arn):
                removed.append(arn)
        except FsdError as error:
            left.append(f"{arn}: {error.message}")
    return removed, left


def _tagged(clients: Clients, name: str) -> list[str]:
    filters = [{"Key": TAG, "Values": [name]}]
    with asking(clients, "looking for tagged resources"):
        pages = list(
            clients.client("resourcegroupstaggingapi").get_paginator("get_resources").paginate(TagFilters=filters)
        )
    arns = [str(found["ResourceARN"]) for page in pages for found in page["ResourceTagMappingList"]]
    return [arn for arn in arns if _is_here(arn, clients.region)]


def _is_here(arn: str, region: str) -> bool:
    """Whether a resource is of the region: roles and buckets are of no region, and have it in their names."""
    return arn.split(":")[3] == region or (not arn.split(":")[3] and arn.endswith(f"-{region}"))


def _remove(clients: Clients, arn: str) -> bool:
    """Remove one resource; False if it is gone already."""
    service = arn.split(":")[2]
    if service == "cloudformation":
        # Stacks have been removed by now, or are told of as left.
        return False
    if service not in _REMOVERS:
        raise DeploymentError(f"it is of {service}: remove it by hand")
    with asking(clients, f"removing {arn}"):
        try:
            _REMOVERS[service](clients, arn)
        except sdk.ClientError as error:
            if error_code(error) in _GONE:
                return False
            raise
    return True


def _remove_queue(clients: Clients, arn: str) -> None:
    sqs = clients.client("sqs")
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=arn.split(":")[-1])["QueueUrl"])


def _remove_topic(clients: Clients, arn: str) -> None:
    # To remove a topic that is gone is no error, so look first.
    clients.client("sns").get_topic_attributes(TopicArn=arn)
    clients.client("sns").delete_topic(TopicArn=arn)


def _remove_bucket(clients: Clients, arn: str) -> None:
    bucket = arn.split(":")[-1]
    delete_objects(clients, bucket)
    clients.client("s3").delete_bucket(Bucket=bucket)


def _remove_function(clients: Clients, arn: str) -> None:
    clients.client("lambda").delete_function(FunctionName=arn)


def _remove_log(clients: Clients, arn: str) -> None:
    clients.client("logs").delete_log_group(logGroupName=arn.split(":")[6])


def _remove_role(clients: Clients, arn: str) -> None:
    iam, role = clients.client("iam"), arn.rpartition("/")[2]
    for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        iam.delete_role_policy(RoleName=role, PolicyName=policy)
    iam.delete_role(RoleName=role)


_REMOVERS: dict[str, Callable[[Clients, str], None]] = {
    "iam": _remove_role,
    "lambda": _remove_function,
    "logs": _remove_log,
    "s3": _remove_bucket,
    "sns": _remove_topic,
    "sqs": _remove_queue,
}
