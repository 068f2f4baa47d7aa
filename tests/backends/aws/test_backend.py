"""The backend as a whole, without AWS: finding the deployment, and one clear line for each thing that is wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsd_aws import AwsSettings
from fsd_aws.backend import AwsBackend
from fsd_aws.deployment import Deployment
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import (
    ConfigError,
    CredentialsError,
    DeploymentMissingError,
    InputError,
    PlanError,
)
from tests.backends.aws.stubs import StubbedClients, make_deployment

DEPLOYMENT = make_deployment(workers=4, name="demo", lanes=3)


class Stubbed(AwsBackend):
    """A backend whose AWS answers what a test says."""

    clients: StubbedClients

    def __init__(self) -> None:
        super().__init__(AwsSettings(name="demo"))
        self.clients = StubbedClients()


@pytest.fixture
def backend() -> Iterator[Stubbed]:
    made = Stubbed()
    yield made
    made.clients.check()
    made.close()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine on which nothing of AWS is configured."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def stack(status: str = "CREATE_COMPLETE", output: str | None = DEPLOYMENT.to_json()) -> dict[str, Any]:
    outputs = [] if output is None else [{"OutputKey": "Deployment", "OutputValue": output}]
    described = {"StackName": "fsd-demo", "StackStatus": status, "CreationTime": 0, "Outputs": outputs}
    return {"Stacks": [described]}


def found(backend: Stubbed, answer: dict[str, Any]) -> None:
    backend.clients.answers("cloudformation", "describe_stacks", answer, StackName="fsd-demo")


def test_the_stack_tells_all_about_the_deployment_in_one_call(backend: Stubbed) -> None:
    found(backend, stack())
    assert backend.deployment == DEPLOYMENT
    assert backend.compute.capabilities.max_workers == 4
    assert backend.channel_capabilities("queue").lanes == 3


def test_limits_can_be_shown_without_a_deployment(backend: Stubbed) -> None:
    assert backend.channel_capabilities("sqs").max_publish_bytes == (1 << 20) - 1_024
    assert backend.channel_capabilities("queue").max_publish_bytes == 255 * 1024
    assert backend.channel_capabilities("object").lanes is None


def test_a_missing_deployment_names_the_command(backend: Stubbed) -> None:
    backend.clients.fails("cloudformation", "describe_stacks", "ValidationError")
    with pytest.raises(DeploymentMissingError) as caught:
        Session(backend, RunSettings())
    assert str(caught.value) == "no deployment demo in eu-west-1; run: fsd deploy aws --name demo"


@pytest.mark.parametrize("answer", [stack("ROLLBACK_COMPLETE"), stack("CREATE_IN_PROGRESS"), stack(output=None)])
def test_a_deployment_that_is_not_finished_names_the_command(backend: Stubbed, answer: dict[str, Any]) -> None:
    found(backend, answer)
    with pytest.raises(
        DeploymentMissingError, match=r"cannot be used, its stack is .* run: fsd deploy aws --name demo"
    ):
        Session(backend, RunSettings())


def test_more_workers_than_the_deployment_has_are_refused(backend: Stubbed) -> None:
    found(backend, stack())
    with pytest.raises(PlanError, match="4"):
        Session(backend, RunSettings(workers=5))


def test_expired_credentials_are_told(backend: Stubbed) -> None:
    backend.clients.fails("cloudformation", "describe_stacks", "ExpiredToken")
    with pytest.raises(CredentialsError, match="have expired; renew them"):
        Session(backend, RunSettings())


def test_all_of_these_end_a_command_with_two() -> None:
    assert {kind.exit_code for kind in (DeploymentMissingError, PlanError, CredentialsError, ConfigError)} == {2}


def test_no_credentials_are_told_before_anything_is_asked(bare: pytest.MonkeyPatch) -> None:
    backend = AwsBackend(AwsSettings(region="eu-west-1"))
    with pytest.raises(CredentialsError, match=r"no AWS credentials.*run: aws configure"):
        backend.credentials()
    with pytest.raises(CredentialsError, match=r"no AWS credentials.*run: aws configure"):
        Session(backend, RunSettings())


def test_credentials_are_named_by_where_they_are_from(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_ACCESS_KEY_ID", "key")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    told = AwsBackend(AwsSettings(region="eu-west-1")).credentials()
    assert told == "found (env), region eu-west-1"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (AwsSettings(), "no AWS region: set region in .aws., or AWS_DEFAULT_REGION"),
        (AwsSettings(region="eu-west-1", profile="nobody"), "nobody"),
        (AwsSettings(region="eu west"), "eu west"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told(
    bare: pytest.MonkeyPatch, settings: AwsSettings, text: str
) -> None:
    bare.setenv("AWS_ACCESS_KEY_ID", "key")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(InputError, match=text) as caught:
        Session(AwsBackend(settings), RunSettings())
    assert "\n" not in str(caught.value)


def test_a_region_that_cannot_be_reached_is_asked_about(bare: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    bare.setenv("AWS_ACCESS_KEY_ID", "key")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bare.setattr("socket.getaddrinfo", unknown)
    bare.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    with pytest.raises(ConfigError, match=r"in eu-west-9: cannot reach .* is the region eu-west-9 right\?"):
        Session(AwsBackend(AwsSettings(region="eu-west-9")), RunSettings())


def test_without_its_packages_the_backend_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['boto3'] = None\n"
        "from fsdcore.errors import MissingExtraError\n"
        "from fsdcore.client.registry import backend_class\n"
        "try: backend_class('aws')\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("run: pip install 'fsd-inference[aws]'")
    assert "'boto3'" in done.stdout


def test_inside_a_worker_the_settings_are_those_of_the_deployment() -> None:
    given = AwsSettings(name="far", region="eu-west-1", memory_mb=512, topics=3, lanes=2, payload="text")
    deployment = Deployment.of(given, account="123456789012", partition="aws", workers=4)
    assert AwsBackend(deployment=deployment).settings == given
