"""The templates of a deployment's stacks, all from its one description.

A template holds at most 500 resources, and every queue has a subscription to every topic: 620 for 62 workers and ten
topics. So there are several stacks, cut where nothing ever moves from one to another as a deployment grows:

- ``fsd-NAME``: bucket, role, function, log, and the queue of events that failed. It is made with the bucket alone
  first, for the function's code to lie in.
- ``fsd-NAME--queues-LANE``: the queues of a lane.
- ``fsd-NAME--topic-SHARD``: a topic and its subscriptions.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from fsd_aws.deploy.policies import worker_policy
from fsd_aws.deployment import OUTPUT, VARIABLE, Deployment
from fsd_aws.queue import QUEUE_BYTES
from fsd_aws.settings import AwsSettings
from fsdcore.errors import ConfigError

Template: TypeAlias = dict[str, Any]

TAG = "fsd:deployment"
FUNCTION_OUTPUT = "Function"
# Where packages, and templates on their way, lie in the bucket.
PACKAGES, TEMPLATES = "packages/", "templates/"

_HANDLER = "fsd_aws.handler.handle"
# Filters that a topic may have, and subscriptions to one whose messages may be larger than by default.
_MOST_FILTERS, _MOST_LARGE, _USUAL_BYTES = 200, 100, 262_144
# Those of an account together.
_MOST_FILTERS_OF_ALL = 10_000
# An event that could not start for so long is of a run that has given up.
_OLDEST_EVENT_SECONDS = 900
_MESSAGE_SECONDS, _DEAD_SECONDS = 3_600, 14 * 86_400


def check_size(deployment: Deployment) -> None:
    """`ConfigError` for a deployment that the services do not take."""
    queues = deployment.workers * deployment.lanes
    most = _MOST_LARGE if deployment.topic_bytes > _USUAL_BYTES else _MOST_FILTERS
    if queues > most:
        raise ConfigError(
            f"{deployment.workers} workers on {deployment.lanes} lanes are {queues} queues, "
            f"and a topic takes {most} with topic_bytes = {deployment.topic_bytes}; take fewer workers or lanes"
        )
    filters = queues * deployment.topics
    if filters > _MOST_FILTERS_OF_ALL:
        raise ConfigError(
            f"{deployment.topics} topics and {queues} queues need {filters:,} filters, and an account has "
            f"{_MOST_FILTERS_OF_ALL:,} for all that is in it; take fewer topics, workers or lanes"
        )


def main_template(deployment: Deployment, settings: AwsSettings, code: str | None) -> Template:
    """The stack with the function, whose code is the object `code`; without code, only with what comes before it."""
    resources = _storage(deployment, settings)
    if code is None:
        return _template(deployment, "the bucket of a deployment; more follows", resources)
    template = _template(deployment, "a deployment", {**resources, **_function(deployment, settings, code)})
    about = f"python{settings.python} on {settings.architecture}, code {code.removeprefix(PACKAGES)[:12]}"
    template["Outputs"] = {OUTPUT: {"Value": deployment.to_json()}, FUNCTION_OUTPUT: {"Value": about}}
    return template


def part_templates(deployment: Deployment) -> tuple[dict[str, Template], dict[str, Template]]:
    """By the name of their stacks: those with queues, and those with topics, which need the queues."""
    part = deployment.part_name
    queues = {part(f"queues-{lane}"): _queues(deployment, lane) for lane in range(deployment.lanes)}
    topics = {part(f"topic-{shard}"): _topic(deployment, shard) for shard in range(deployment.topics)}
    return queues, topics


# Main ------------------------------------------------------------------------------------------------------


def _storage(deployment: Deployment, settings: AwsSettings) -> Template:
    bucket = f"arn:{deployment.partition}:s3:::{deployment.bucket}"
    properties = {
        "BucketName": deployment.bucket,
        "PublicAccessBlockConfiguration": dict.fromkeys(
            ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
        ),
        "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
        "LifecycleConfiguration": {"Rules": _lifecycle(settings)},
        "Tags": _tags(deployment),
    }
    policy = {
        "Bucket": {"Ref": "Bucket"},
        "PolicyDocument": {"Version": "2012-10-17", "Statement": [_tls_only("s3:*", [bucket, f"{bucket}/*"])]},
    }
    return {"Bucket": _resource("S3::Bucket", properties), "BucketPolicy": _resource("S3::BucketPolicy", policy)}


def _lifecycle(settings: AwsSettings) -> list[Template]:
    return [
        {"Id": "runs", "Status": "Enabled", "Prefix": "runs/", "ExpirationInDays": settings.run_days},
        {"Id": "uploads", "Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}},
    ]


def _function(deployment: Deployment, settings: AwsSettings, code: str) -> Template:
    function = {
        "FunctionName": deployment.function,
        "Code": {"S3Bucket": deployment.bucket, "S3Key": code},
        "Handler": _HANDLER,
        "Runtime": f"python{settings.python}",
        "Architectures": [settings.architecture],
        "MemorySize": settings.memory_mb,
        "Timeout": settings.timeout_seconds,
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "DeadLetterConfig": {"TargetArn": {"Fn::GetAtt": ["DeadEvents", "Arn"]}},
        "Environment": {"Variables": {VARIABLE: deployment.to_json()}},
        # Workers start workers: a tree that ends, not a loop to be cut off.
        "RecursiveLoop": "Allow",
        "Tags": _tags(deployment),
    }
    invoke = {
        "FunctionName": {"Ref": "Function"},
        "Qualifier": "$LATEST",
        "MaximumRetryAttempts": 0,
        "MaximumEventAgeInSeconds": _OLDEST_EVENT_SECONDS,
    }
    made = {
        "Log": _resource("Logs::LogGroup", _log(deployment, settings)),
        "DeadEvents": _resource("SQS::Queue", _queue(deployment, deployment.dead_letter_queue, _DEAD_SECONDS)),
        "DeadEventsPolicy": _resource("SQS::QueuePolicy", _dead_policy(deployment)),
        "Role": _resource("IAM::Role", _role(deployment)),
        "Function": {**_resource("Lambda::Function", function), "DependsOn": ["Log"]},
        "Invoke": _resource("Lambda::EventInvokeConfig", invoke),
    }
    if deployment.express_bucket:
        made["Express"] = _resource("S3Express::DirectoryBucket", _express(deployment, settings))
        made["ExpressPolicy"] = _resource("S3Express::BucketPolicy", _express_policy(deployment))
    return made


def _dead_policy(deployment: Deployment) -> Template:
    refuse = _tls_only("sqs:*", [deployment.dead_letter_queue_arn])
    return {"Queues": [{"Ref": "DeadEvents"}], "PolicyDocument": {"Version": "2012-10-17", "Statement": [refuse]}}


def _log(deployment: Deployment, settings: AwsSettings) -> Template:
    return {
        "LogGroupName": deployment.log_group,
        "RetentionInDays": _retention(settings.log_days),
        "Tags": _tags(deployment),
    }


# What CloudWatch Logs takes as retention.
_RETENTIONS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)


def _retention(days: int) -> int:
    """The shortest that the service offers of at least `days`."""
    return next(offered for offered in _RETENTIONS if offered >= days)


def _role(deployment: Deployment) -> Template:
    assume = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {
        "RoleName": deployment.role,
        "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [assume]},
        "Policies": [{"PolicyName": "worker", "PolicyDocument": worker_policy(deployment)}],
        "Tags": _tags(deployment),
    }


def _express(deployment: Deployment, settings: AwsSettings) -> Template:
    return {
        "BucketName": deployment.express_bucket,
        "DataRedundancy": "SingleAvailabilityZone",
        "LocationName": deployment.express_zone,
        "LifecycleConfiguration": {"Rules": _lifecycle(settings)},
    }


def _express_policy(deployment: Deployment) -> Template:
    bucket = deployment.arn("s3express", f"bucket/{deployment.express_bucket}")
    refuse = _tls_only("s3express:*", [bucket])
    return {"Bucket": {"Ref": "Express"}, "PolicyDocument": {"Version": "2012-10-17", "Statement": [refuse]}}


# Queues and topics -----------------------------------------------------------------------------------------


def _queues(deployment: Deployment, lane: int) -> Template:
    resources = {
        f"Queue{rank}": _resource("SQS::Queue", _lane_queue(deployment, lane, rank))
        for rank in range(deployment.workers)
    }
    # The policy is each queue's own, and may name no other.
    deliver = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": "*",
        "Condition": {"ArnLike": {"aws:SourceArn": deployment.arn("sns", deployment.part_name("*"))}},
    }
    policy = {
        "Queues": [{"Ref": name} for name in resources],
        "PolicyDocument": {"Version": "2012-10-17", "Statement": [deliver, _tls_only("sqs:*", ["*"])]},
    }
    resources["Policy"] = _resource("SQS::QueuePolicy", policy)
    return _template(deployment, f"the queues of lane {lane}", resources)


def _lane_queue(deployment: Deployment, lane: int, rank: int) -> Template:
    queue = _queue(deployment, deployment.queue_name(lane, rank), _MESSAGE_SECONDS)
    return {**queue, "VisibilityTimeout": deployment.visibility_timeout, "MaximumMessageSize": QUEUE_BYTES}


def _queue(deployment: Deployment, name: str, kept_seconds: int) -> Template:
    return {
        "QueueName": name,
        "MessageRetentionPeriod": kept_seconds,
        "SqsManagedSseEnabled": True,
        "Tags": _tags(deployment),
    }


def _topic(deployment: Deployment, shard: int) -> Template:
    topic: Template = {"TopicName": deployment.topic_name(shard), "Tags": _tags(deployment)}
    if deployment.topic_bytes > _USUAL_BYTES:
        topic["MaximumMessageSize"] = str(deployment.topic_bytes)
    policy = {
        "Topics": [{"Ref": "Topic"}],
        "PolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [_tls_only("sns:Publish", [deployment.topic_arn(shard)])],
        },
    }
    resources = {"Topic": _resource("SNS::Topic", topic), "Policy": _resource("SNS::TopicPolicy", policy)}
    for lane in range(deployment.lanes):
        for rank in range(deployment.workers):
            resources[f"Lane{lane}Rank{rank}"] = _resource("SNS::Subscription", _subscription(deployment, lane, rank))
    return _template(deployment, f"topic {shard} and its subscriptions", resources)


def _subscription(deployment: Deployment, lane: int, rank: int) -> Template:
    return {
        "TopicArn": {"Ref": "Topic"},
        "Protocol": "sqs",
        "Endpoint": deployment.queue_arn(lane, rank),
        "RawMessageDelivery": True,
        "FilterPolicy": {"target": [deployment.target(lane, rank)]},
    }


# Parts of all ----------------------------------------------------------------------------------------------


def _template(deployment: Deployment, what: str, resources: Template) -> Template:
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"fsd-inference {deployment.name}: {what}",
        "Resources": resources,
    }


def _resource(kind: str, properties: Template) -> Template:
    return {"Type": f"AWS::{kind}", "Properties": properties}


def _tags(deployment: Deployment) -> list[dict[str, str]]:
    return [{"Key": TAG, "Value": deployment.name}]


def _tls_only(action: str, resources: list[str]) -> Template:
    return {
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": resources,
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
