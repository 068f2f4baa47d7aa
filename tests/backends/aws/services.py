"""The resources of a deployment in local AWS, made one by one, for tests of single parts."""

from __future__ import annotations

import json
from typing import Any

from fsd_aws.clients import Clients
from fsd_aws.deployment import Deployment
from fsd_aws.settings import AwsSettings

REGION = "eu-west-1"


def make_resources(clients: Clients, workers: int, **settings: Any) -> Deployment:
    """Topics, queues, subscriptions and bucket of a new deployment."""
    account = clients.client("sts").get_caller_identity()["Account"]
    deployment = Deployment.of(
        AwsSettings(**settings), region=REGION, partition="aws", account=account, workers=workers
    )
    clients.client("s3").create_bucket(
        Bucket=deployment.bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    for shard in range(deployment.topics):
        clients.client("sns").create_topic(Name=deployment.topic_name(shard))
    for lane in range(deployment.lanes):
        for rank in range(workers):
            _make_queue(clients, deployment, lane, rank)
    return deployment


def _make_queue(clients: Clients, deployment: Deployment, lane: int, rank: int) -> None:
    attributes = {"VisibilityTimeout": str(deployment.visibility_timeout)}
    clients.client("sqs").create_queue(QueueName=deployment.queue_name(lane, rank), Attributes=attributes)
    filtered = {"RawMessageDelivery": "true", "FilterPolicy": json.dumps({"target": [deployment.target(lane, rank)]})}
    for shard in range(deployment.topics):
        clients.client("sns").subscribe(
            TopicArn=deployment.topic_arn(shard),
            Protocol="sqs",
            Endpoint=deployment.queue_arn(lane, rank),
            Attributes=filtered,
        )
