"""The policies of users, enforced: who deploys can, who runs can, and neither can do more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from fsd_aws import AwsBackend, AwsSettings
from fsd_aws.deploy.policies import deployer_policy, runner_policy
from fsd_aws.deploy.templates import Template
from fsd_aws.deployment import Deployment
from fsd_emulators.aws import LocalAws
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Address, Outgoing
from fsdcore.deploy import Package
from fsdcore.errors import DeploymentError
from fsdcore.messages.frames import HEADER_BYTES
from tests.backends.aws.deploy.conftest import ACCOUNT, REGION

SETTINGS = AwsSettings(name="demo", topics=2)
STATEMENTS = 9
UserMaker = Callable[[str], AwsBackend]


def without(policy: dict[str, Any], number: int) -> dict[str, Any]:
    """The policy but for one statement."""
    statements = policy["Statement"]
    assert len(statements) == STATEMENTS
    return {**policy, "Statement": [one for place, one in enumerate(statements) if place != number]}


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns off the one rule that cannot be kept here: local AWS speaks no TLS."""

    def harmless(action: str, resources: list[str]) -> Template:
        return {"Effect": "Deny", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/nobody"}} | {
            "Action": action,
            "Resource": resources,
        }

    monkeypatch.setattr("fsd_aws.deploy.templates._tls_only", harmless)


@pytest.fixture
def user(strict_aws: LocalAws, package: Package, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserMaker]:
    """Makes a user with the policy of a ``deployer`` or a ``runner``, and a backend with that user's credentials."""
    deployment = Deployment.of(SETTINGS, region=REGION, partition="aws", account=ACCOUNT, workers=8)
    policies: dict[str, dict[str, Any]] = {"deployer": deployer_policy(deployment), "runner": runner_policy(deployment)}
    policies |= {f"deployer-{number}": without(policies["deployer"], number) for number in range(STATEMENTS)}
    # AWS has no such permissions, those of single messages cover them; local AWS wants them all the same.
    actions = ["sns:PublishBatch", "sqs:SendMessageBatch", "sqs:DeleteMessageBatch"]
    resources = [deployment.arn(service, deployment.part_name("*")) for service in ("sns", "sqs")]
    policies["runner"]["Statement"].append({"Effect": "Allow", "Action": actions, "Resource": resources})
    iam, made = boto3.client("iam"), []

    def make(kind: str) -> AwsBackend:
        iam.create_user(UserName=kind)
        iam.put_user_policy(UserName=kind, PolicyName="all", PolicyDocument=json.dumps(policies[kind]))
        key = iam.create_access_key(UserName=kind)["AccessKey"]
        with monkeypatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
            patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
            backend = AwsBackend(SETTINGS)
            for service in ("cloudformation", "iam", "lambda", "logs", "s3", "sns", "sqs", "sts"):
                backend.clients.client(service)
            backend.clients.client("resourcegroupstaggingapi")
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.close()
    iam.close()


@pytest.mark.usefixtures("tls")
def test_each_user_can_do_what_the_policy_is_for(user: UserMaker) -> None:
    deployer, runner = user("deployer"), user("runner")
    assert deployer.provisioner().deploy(4).ready
    runner.store.put("runs/a", b"1")
    assert (runner.store.get("runs/a"), runner.store.list("runs/")) == (b"1", ["runs/a"])
    runner.store.delete(["runs/a"])
    for kind in ("queue", "sqs"):
        one, two = (runner.open_channel(kind, Address("r", rank, 4)) for rank in (0, 3))
        one.send([Outgoing(3, bytes(HEADER_BYTES + 10))])
        received = two.receive(Deadline.after(20, SYSTEM_CLOCK))
        assert len(received) == 1
        two.acknowledge(received)
    assert deployer.provisioner().destroy().left == ()


@pytest.mark.usefixtures("tls")
def test_a_runner_sees_whether_the_deployment_is_there(user: UserMaker) -> None:
    runner = user("runner")
    assert not runner.provisioner().status().ready
    user("deployer").provisioner().deploy(4)
    assert runner.provisioner().status().ready
    assert all(check.ok for check in runner.checks(4))


@pytest.mark.usefixtures("tls")
def test_a_deployer_grows_shrinks_takes_back_and_destroys(user: UserMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the policy that was printed for 8 workers, and nothing else."""
    deployer, sqs = user("deployer"), boto3.client("sqs")
    provisioner = deployer.provisioner()
    assert provisioner.deploy(8).workers == 8
    with monkeypatch.context() as patch:
        # Longer than the service keeps anything, so that it refuses the queues.
        patch.setattr("fsd_aws.deploy.templates._MESSAGE_SECONDS", 99 * 86_400)
        with pytest.raises(DeploymentError, match=r"fsd-demo--queues-0 could not be made, it is UPDATE_ROLLBACK_COMP"):
            provisioner.deploy(20)
    assert provisioner.status().workers == 8
    assert provisioner.deploy(20).workers == 20
    assert provisioner.deploy(3).workers == 3
    assert provisioner.destroy().left == ()
    assert sqs.list_queues().get("QueueUrls", []) == []
    sqs.close()


# What a deploy says that lacks a statement of its policy. The one on directory buckets needs what is not here.
MISSING = (
    (0, "cloudformation:CreateStack|DescribeStacks"),
    (1, "logs:DescribeIndexPolicies"),
    (2, "sns:GetSubscriptionAttributes"),
    (3, "s3:"),
    (5, "lambda:"),
    (6, "logs:"),
    (7, "sqs:"),
    (8, "iam:"),
)


@pytest.mark.slow
@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize(("number", "named"), MISSING)
def test_each_statement_of_the_deployers_policy_is_needed(number: int, named: str, user: UserMaker) -> None:
    with pytest.raises(DeploymentError, match=named):
        user(f"deployer-{number}").provisioner().deploy(2)


@pytest.mark.usefixtures("tls")
def test_without_rights_on_subscriptions_nothing_can_be_removed(user: UserMaker) -> None:
    user("deployer").provisioner().deploy(2)
    left = user("deployer-2").provisioner().destroy().left
    assert any("sns:" in line and "fsd-demo--topic-0" in line for line in left)


@pytest.mark.usefixtures("tls")
def test_a_runner_can_neither_deploy_nor_reach_beyond(user: UserMaker) -> None:
    runner = user("runner")
    with pytest.raises(DeploymentError, match=r"AWS refused"):
        runner.provisioner().deploy(4)
    user("deployer").provisioner().deploy(4)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="others")
    with pytest.raises(runner.clients.client("s3").exceptions.ClientError, match="AccessDenied"):
        runner.clients.client("s3").put_object(Bucket="others", Key="k", Body=b"")
    url = boto3.client("sqs").get_queue_url(QueueName="fsd-demo--0-0")["QueueUrl"]
    with pytest.raises(runner.clients.client("sqs").exceptions.ClientError, match="AccessDenied"):
        runner.clients.client("sqs").delete_queue(QueueUrl=url)


def test_requests_without_tls_are_refused(user: UserMaker) -> None:
    deployer = user("deployer")
    with pytest.raises(DeploymentError, match="AWS refused"):
        deployer.provisioner().deploy(4)
    # The bucket is there by now, and its policy: not even a user who may do everything with it gets in.
    s3 = deployer.clients.client("s3")
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        s3.put_object(Bucket=f"fsd-demo-{ACCOUNT}-{REGION}", Key="runs/a", Body=b"1")
