"""SNS, SQS and S3 on this machine, and the resources of a deployment in them, for tests of single parts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.aws.clients import Clients
from backends.aws.deployment import Deployment
from backends.aws.emulator.ministack import ACCESS_KEY, SECRET_KEY, find_ministack
from backends.aws.settings import AwsSettings
from fsdcore.errors import MissingExtraError
from fsdcore.testing.processes import HOST, ServerProcess, free_port, http_ready

__all__ = ["REGION", "endpoint", "make_resources"]

REGION = "eu-west-1"
_ACCOUNT = "000000000000"


@contextmanager
def endpoint(folder: Path) -> Iterator[str]:
    """The services, started in `folder`; skips the test where they are not installed. Gives their address."""
    try:
        program = find_ministack()
    except MissingExtraError as error:
        pytest.skip(error.message)
    port = free_port()
    url = f"http://{HOST}:{port}"
    environ = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "STATE_DIR": str(folder / "state"),
        "S3_DATA_DIR": str(folder / "s3"),
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "EDGE_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    ready = http_ready(f"{url}/_ministack/health")
    process = ServerProcess("ministack", [program], environ=environ, folder=folder, log=folder / "log", ready=ready)
    process.start()
    try:
        yield url
    finally:
        process.stop()


def make_resources(clients: Clients, workers: int, **settings: Any) -> Deployment:
    """Topics, queues, subscriptions and bucket of a new deployment."""
    deployment = Deployment.of(AwsSettings(**settings), region=REGION, account=_ACCOUNT, workers=workers)
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
