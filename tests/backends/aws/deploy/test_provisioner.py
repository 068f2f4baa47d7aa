"""Deployments from first to last, by the real SDK over sockets, on local AWS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber
from typer.testing import CliRunner, Result

from fsd_aws import AwsBackend, AwsSettings
from fsd_aws.deploy import provisioner
from fsd_aws.deploy.templates import Template, main_template
from fsd_aws.deployment import Deployment, find_deployment
from fsd_aws.errors import BucketMissingError
from fsd_emulators.aws import LocalAws
from fsdcore.cli.app import app
from fsdcore.deploy import Package
from fsdcore.errors import ConfigError, CredentialsError, DeploymentError
from tests.backends.aws.deploy.conftest import ACCOUNT, REGION, BackendMaker


def everything(backend: AwsBackend) -> dict[str, list[str]]:
    """What there is of each service in the account."""
    client = backend.clients.client
    stacks = client("cloudformation").describe_stacks()["Stacks"]
    return {
        "stacks": [one["StackName"] for one in stacks if one["StackStatus"] != "DELETE_COMPLETE"],
        "buckets": [one["Name"] for one in client("s3").list_buckets()["Buckets"]],
        "queues": client("sqs").list_queues().get("QueueUrls", []),
        "topics": [one["TopicArn"] for one in client("sns").list_topics()["Topics"]],
        "subscriptions": [one["Endpoint"] for one in client("sns").list_subscriptions()["Subscriptions"]],
        "functions": [one["FunctionName"] for one in client("lambda").list_functions()["Functions"]],
        "roles": [one["RoleName"] for one in client("iam").list_roles()["Roles"] if one["RoleName"].startswith("fsd")],
        "logs": [one["logGroupName"] for one in client("logs").describe_log_groups()["logGroups"]],
    }


class StopAt:
    """An observer that stops the program, as Ctrl-C does, at the `count`-th word of a task."""

    def __init__(self, task: str, count: int) -> None:
        self.task, self.left = task, count

    def progress(self, task: str, done: int, total: int) -> None:
        self.left -= task == self.task
        if self.left == 0:
            raise KeyboardInterrupt


def events(backend: AwsBackend) -> int:
    """How often CloudFormation did something to the deployment's stacks."""
    service = backend.clients.client("cloudformation")
    stacks = [one["StackName"] for one in service.describe_stacks()["Stacks"]]
    return sum(len(service.describe_stack_events(StackName=stack)["StackEvents"]) for stack in stacks)


def test_deploy_makes_everything_and_destroy_leaves_nothing(make_backend: BackendMaker, package: Package) -> None:
    backend = make_backend(topics=3, lanes=2)
    before = everything(backend)
    status = backend.provisioner().deploy(8)
    assert (status.ready, status.workers, status.problem) == (True, 8, "")
    assert "3 topics, 16 queues, 48 subscriptions" in status.resources
    assert status.resources[-2:] == ("package 0.0 MB zipped, 0.0 MB unzipped (at most 262.1)", "a notice")
    found = everything(backend)
    assert (len(found["topics"]), len(found["queues"]), len(found["subscriptions"])) == (3, 17, 48)
    bucket = f"fsd-demo-{ACCOUNT}-{REGION}"
    assert (found["buckets"], found["functions"], found["roles"]) == ([bucket], ["fsd-demo"], [f"fsd-demo-{REGION}"])
    keys = backend.clients.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert [one["Key"] for one in keys] == [f"packages/{package.digest}.zip"]
    assert find_deployment(backend.clients, "demo").workers == 8
    removal = backend.provisioner().destroy()
    assert removal.left == ()
    assert len(removal.removed) == 6 + 1
    assert everything(backend) == before
    assert backend.provisioner().destroy().removed == ()


def test_deploying_again_changes_nothing(make_backend: BackendMaker) -> None:
    backend = make_backend(topics=2)
    first = backend.provisioner().deploy(3)
    seen = events(backend)
    assert backend.provisioner().deploy(3) == first
    assert events(backend) == seen


def test_more_workers_and_then_fewer(make_backend: BackendMaker) -> None:
    backend = make_backend(topics=2)
    backend.provisioner().deploy(3)
    for workers in (7, 2):
        assert backend.provisioner().deploy(workers).workers == workers
        assert len(everything(backend)["subscriptions"]) == 2 * workers
    fewer = make_backend(topics=1)
    assert fewer.provisioner().deploy(2).ready
    found = everything(fewer)
    assert (len(found["topics"]), len(found["subscriptions"])) == (1, 2)
    assert "fsd-demo--topic-1" not in found["stacks"]


@pytest.mark.parametrize("workers", [20, 62])
def test_large_deployments(make_backend: BackendMaker, workers: int) -> None:
    backend = make_backend()
    assert backend.provisioner().deploy(workers).ready
    pages = backend.clients.client("sns").get_paginator("list_subscriptions").paginate()
    assert sum(len(page["Subscriptions"]) for page in pages) == 10 * workers
    assert backend.provisioner().destroy().left == ()


def test_a_template_too_long_for_a_request_goes_by_the_bucket(make_backend: BackendMaker) -> None:
    backend = make_backend(name="abcdefghijklmnopqrstuvwx", topics=1)
    assert backend.provisioner().deploy(200).ready
    queues = backend.clients.client("sqs").get_paginator("list_queues").paginate()
    assert sum(len(page["QueueUrls"]) for page in queues) == 201
    assert backend.store.list("templates/") == []


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_stopped_deploy_goes_on(make_backend: BackendMaker, count: int) -> None:
    backend = make_backend(topics=2)
    backend.observer = StopAt("stacks", count)
    with pytest.raises(KeyboardInterrupt):
        backend.provisioner().deploy(3)
    again = make_backend(topics=2)
    assert again.provisioner().deploy(3).ready
    assert len(everything(again)["subscriptions"]) == 6


def test_a_stopped_deploy_can_be_destroyed(make_backend: BackendMaker) -> None:
    backend = make_backend(topics=2)
    backend.observer = StopAt("stacks", 2)
    with pytest.raises(KeyboardInterrupt):
        backend.provisioner().deploy(3)
    status = backend.provisioner().status()
    assert not status.ready
    assert "fsd deploy aws --name demo" in status.problem
    assert make_backend().provisioner().destroy().left == ()
    assert everything(backend)["buckets"] == []


def test_a_stopped_destroy_goes_on(make_backend: BackendMaker) -> None:
    backend = make_backend(topics=2)
    backend.provisioner().deploy(3)
    backend.observer = StopAt("stacks", 1)
    with pytest.raises(KeyboardInterrupt):
        backend.provisioner().destroy()
    again = make_backend(topics=2)
    assert again.provisioner().destroy().left == ()
    assert not any(everything(again).values())


def test_what_cannot_be_made_is_told_and_can_be_made_later(make_backend: BackendMaker) -> None:
    backend = make_backend(topics=1)
    s3, bucket = backend.clients.client("s3"), f"fsd-demo-{ACCOUNT}-{REGION}"
    s3.create_bucket(Bucket=bucket)
    for _ in range(2):
        with pytest.raises(DeploymentError, match=r"stack fsd-demo could not be made, it is \w+: Bucket: .*exists"):
            backend.provisioner().deploy(2)
        assert not backend.provisioner().status().ready
    # Nothing was put into a bucket that is another's.
    s3.delete_bucket(Bucket=bucket)
    assert backend.provisioner().deploy(2).ready


def test_a_bucket_that_somebody_removed_is_told(make_backend: BackendMaker, package: Package) -> None:
    backend = make_backend(topics=1)
    backend.provisioner().deploy(2)
    s3, bucket = backend.clients.client("s3"), f"fsd-demo-{ACCOUNT}-{REGION}"
    s3.delete_object(Bucket=bucket, Key=f"packages/{package.digest}.zip")
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(BucketMissingError, match=f"bucket {bucket} is gone; run: fsd destroy aws --name demo"):
        backend.provisioner().deploy(2)
    assert backend.provisioner().destroy().left == ()
    assert backend.provisioner().deploy(2).ready


def test_a_change_that_is_taken_back_is_told(make_backend: BackendMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make_backend(topics=1)
    with monkeypatch.context() as patch:
        # Longer than the service keeps anything, so that it refuses the queue.
        patch.setattr("fsd_aws.deploy.templates._DEAD_SECONDS", 99 * 86_400)
        for _ in range(2):
            with pytest.raises(DeploymentError, match=r"stack fsd-demo could not be made, it is UPDATE_ROLLBACK_COMP"):
                backend.provisioner().deploy(2)
    assert not backend.provisioner().status().ready
    assert backend.provisioner().deploy(2).ready


def test_what_bears_the_tag_goes_and_what_does_not_stays(make_backend: BackendMaker) -> None:
    backend = make_backend(topics=1)
    backend.provisioner().deploy(2)
    sqs, sns = backend.clients.client("sqs"), backend.clients.client("sns")
    sqs.create_queue(QueueName="lost", tags={"fsd:deployment": "demo"})
    sns.create_topic(Name="lost", Tags=[{"Key": "fsd:deployment", "Value": "demo"}])
    sqs.create_queue(QueueName="fsd-demo-alike", tags={"fsd:deployment": "demo2"})
    removal = backend.provisioner().destroy()
    assert f"arn:aws:sqs:{REGION}:{ACCOUNT}:lost" in removal.removed
    assert f"arn:aws:sns:{REGION}:{ACCOUNT}:lost" in removal.removed
    found = everything(backend)
    assert [url.rpartition("/")[2] for url in found["queues"]] == ["fsd-demo-alike"]
    assert found["topics"] == []


def test_two_deployments_do_not_know_each_other(make_backend: BackendMaker) -> None:
    one, other = make_backend(topics=1), make_backend(name="demo-2", topics=1)
    one.provisioner().deploy(2)
    other.provisioner().deploy(2)
    one.provisioner().destroy()
    assert other.provisioner().status().ready
    assert not one.provisioner().status().resources


def test_objects_of_runs_go_with_the_bucket(make_backend: BackendMaker) -> None:
    backend = make_backend(topics=1)
    backend.provisioner().deploy(2)
    backend.store.put("runs/r/0", b"x")
    s3, bucket = backend.clients.client("s3"), f"fsd-demo-{ACCOUNT}-{REGION}"
    for number in range(1, 1_005):
        s3.copy_object(Bucket=bucket, Key=f"runs/r/{number}", CopySource={"Bucket": bucket, "Key": "runs/r/0"})
    assert f"1,006 objects in bucket fsd-demo-{ACCOUNT}-{REGION}" in backend.provisioner().destroy().removed


@pytest.fixture
def directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets of the usual kind in place of directory buckets, which local AWS has not."""

    def name(of: Deployment) -> str:
        return f"fsd-{of.name}-{of.express_zone}" if of.express_zone else ""

    def template(of: Deployment, settings: AwsSettings, code: str | None) -> Template:
        made = main_template(of, settings, code)
        if "Express" in made["Resources"]:
            bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": of.express_bucket}}
            made["Resources"]["Express"] = bucket
            del made["Resources"]["ExpressPolicy"]
        return made

    monkeypatch.setattr(Deployment, "express_bucket", property(name))
    monkeypatch.setattr(provisioner, "main_template", template)


@pytest.mark.usefixtures("directories")
def test_a_directory_bucket_goes_with_its_objects(make_backend: BackendMaker) -> None:
    made = make_backend(topics=1, express_zone="use1-az4")
    made.provisioner().deploy(2)
    made.store.put("plans/p/0", b"x")
    # Whoever removes it need not know of the zone.
    removal = make_backend().provisioner().destroy()
    assert removal.left == ()
    assert "1 object in bucket fsd-demo-use1-az4" in removal.removed
    assert everything(made)["buckets"] == []


@pytest.mark.usefixtures("directories")
def test_a_directory_bucket_of_another_zone_goes_with_its_objects(make_backend: BackendMaker) -> None:
    made = make_backend(topics=1, express_zone="use1-az4")
    made.provisioner().deploy(2)
    made.store.put("plans/p/0", b"x")
    other = make_backend(topics=1, express_zone="use1-az6")
    other.provisioner().deploy(2)
    assert other.store.list("") == []
    assert everything(made)["buckets"] == [f"fsd-demo-{ACCOUNT}-{REGION}", "fsd-demo-use1-az6"]


def test_a_package_that_somebody_removed_is_uploaded_again(make_backend: BackendMaker, package: Package) -> None:
    backend = make_backend(topics=1)
    backend.provisioner().deploy(2)
    backend.clients.client("s3").delete_object(
        Bucket=f"fsd-demo-{ACCOUNT}-{REGION}", Key="packages/" + "ab" * 32 + ".zip"
    )
    assert backend.provisioner().deploy(2).ready
    assert backend.clients.client("s3").list_objects_v2(Bucket=f"fsd-demo-{ACCOUNT}-{REGION}")["KeyCount"] == 1


# Wrong use -------------------------------------------------------------------------------------------------


def test_an_expired_token_is_told(make_backend: BackendMaker) -> None:
    backend = make_backend()
    with Stubber(backend.clients.client("sts")) as stub:
        stub.add_client_error("get_caller_identity", "ExpiredToken", "it is over")
        with pytest.raises(CredentialsError, match="have expired"):
            backend.provisioner().deploy(2)


def test_an_emulator_that_does_not_run_is_told(make_backend: BackendMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    with pytest.raises(ConfigError, match=r"nothing listens at http://127\.0\.0\.1:9; is `fsd emulate aws` run"):
        make_backend().provisioner().deploy(2)


# The command line ------------------------------------------------------------------------------------------


def fsd(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})


def test_the_command_line_from_deploy_to_destroy(aws: LocalAws, package: Package) -> None:
    done = fsd("status", "aws", "--name", "demo")
    assert done.exit_code == 2
    assert done.stderr == (
        f"fsd: error: there is no deployment 'demo'; none in {REGION}; run: fsd deploy aws --name demo\n"
    )
    options = ("--name", "demo", "--set", "topics=1")
    done = fsd("deploy", "aws", *options, "--max-workers", "4")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("deployment 'demo': ready for runs of up to 4 workers\n")
    assert fsd("status", "aws", "--name", "demo").exit_code == 0
    done = fsd("doctor", "aws", "--name", "demo")
    assert done.exit_code == 1
    assert "FAIL  deployment: demo, for up to 4 workers; run: fsd deploy aws --name demo --max-workers 8" in done.stdout
    assert f"ok    region: {REGION}" in done.stdout
    done = fsd("destroy", "aws", "--name", "demo", "--yes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "removed: stack fsd-demo\n" in done.stdout


def test_a_dry_run_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError("AWS was called")

    monkeypatch.setattr("botocore.endpoint.Endpoint.make_request", refuse)
    monkeypatch.setattr("fsd_aws.deploy.provisioner.lambda_package", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = fsd("deploy", "aws", "--name", "demo", "--max-workers", "4", "--set", "region=eu-north-1", "--dry-run")
    assert done.exit_code == 0, done.output
    described = json.loads(done.stdout)
    assert len(described["stacks"]) == 12
    assert described["stacks"]["fsd-demo"]["Resources"]["Bucket"]["Properties"]["BucketName"].endswith("eu-north-1")


def test_no_credentials_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    done = fsd("deploy", "aws", "--set", "region=eu-west-1")
    assert done.exit_code == 2
    assert done.stderr.startswith("fsd: error: no AWS credentials")
    assert done.stderr.count("\n") == 1


def test_two_regions_and_two_names_are_apart_in_one_account(make_backend: BackendMaker) -> None:
    wanted = [("demo", "eu-west-1"), ("demo", REGION), ("other", REGION)]
    backends = [make_backend(name=name, region=region, topics=1) for name, region in wanted]
    assert all(backend.provisioner().deploy(2).ready for backend in backends)
    assert backends[1].provisioner().destroy().left == ()
    assert [backend.provisioner().status().ready for backend in backends] == [True, False, True]
    assert backends[1].provisioner().deploy(2).ready
    assert all(backend.provisioner().destroy().left == () for backend in backends)
