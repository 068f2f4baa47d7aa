"""What is wrong on the user's side: one clear line from every command, and exit code 2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
from typer.testing import CliRunner, Result

from fsd_emulators.aws import LocalAws
from fsdcore.cli.app import app
from fsdcore.faults import Refuse
from tests.backends.aws.deploy.conftest import ACCOUNT, REGION, BackendMaker

BUCKET = f"fsd-demo-{ACCOUNT}-{REGION}"
REMAKE = "run: fsd destroy aws --name demo, then: fsd deploy aws --name demo"

Commands: TypeAlias = dict[str, tuple[str, ...]]


def fsd(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A small network and samples for it."""
    folder = tmp_path_factory.mktemp("files")
    network, inputs = str(folder / "net.safetensors"), str(folder / "in.npz")
    assert fsd("generate", "radixnet", "--neurons", "256", "--layers", "4", "-o", network).exit_code == 0
    assert fsd("generate", "digits", "--neurons", "256", "--samples", "10", "-o", inputs).exit_code == 0
    return network, inputs


@pytest.fixture
def commands(aws: LocalAws, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    """Each command, as given on a machine that has no configuration of AWS but these variables."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("FSD_AWS_NAME", "demo")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    run = ("run", *files, "--backend", "aws", "--workers", "3", "--method", "block", "--channel")
    runs = {channel: (*run, channel) for channel in ("queue", "sqs", "object")}
    words = {word: (word, "aws") for word in ("deploy", "status", "doctor")}
    return {**runs, **words, "destroy": ("destroy", "aws", "--yes")}


@pytest.fixture
def made(make_backend: BackendMaker) -> Iterator[None]:
    """A deployment for three workers."""
    backend = make_backend(topics=1)
    backend.provisioner().deploy(3)
    yield
    backend.close()


def told(done: Result) -> str:
    """The one line that ends a command; that of `fsd doctor` is its last check, and others may be well."""
    if done.stdout.startswith(("ok  ", "FAIL")):
        assert (done.exit_code, done.stderr) == (1, "")
        *before, last = done.stdout.splitlines()
        assert all(line.startswith("ok") for line in before)
        return last.removeprefix("FAIL  ")
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line.removeprefix("fsd: error: ")


def refused(commands: Commands, text: str, names: Sequence[str] = ()) -> None:
    """Whether all commands, or those named, say `text`, a regular expression."""
    lines = {name: told(fsd(*commands[name])) for name in names or commands}
    assert {name: line for name, line in lines.items() if not re.search(text, line)} == {}


def test_no_credentials(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(commands, "no AWS credentials.*run: aws configure, or set AWS_PROFILE")


def test_half_of_the_credentials(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(commands, "no AWS credentials: Partial credentials.*run: aws configure")


def test_a_profile_that_is_not_there(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    refused(commands, "profile .*nobody.* could not be found")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("ExpiredToken", "the AWS credentials have expired; renew them and try again"),
        ("InvalidClientTokenId", r"AWS does not accept the credentials \(InvalidClientTokenId\); check which ones"),
    ],
)
def test_credentials_that_are_not_taken(commands: Commands, aws: LocalAws, code: str, text: str) -> None:
    aws.set_faults(Refuse(by="client", error=code, status=403))
    refused(commands, text)


@pytest.mark.usefixtures("made")
def test_a_token_that_expires_while_the_deployment_is_in_use(commands: Commands, aws: LocalAws) -> None:
    aws.set_faults(Refuse("s3:*", by="client", error="ExpiredToken"))
    refused(commands, "the AWS credentials have expired; renew them", ("queue", "sqs", "object"))


def test_no_region(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK of Python does not read this one.
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    refused(commands, r"no AWS region: set region in \[aws\], or AWS_DEFAULT_REGION")


def test_a_region_that_is_none(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSD_AWS_REGION", "eu west")
    refused(commands, "eu west")


def test_an_emulator_that_does_not_run(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("FSD_AWS_REGION", "eu-wset-1")
    refused(commands, r"nothing listens at http://127.0.0.1:9; is `fsd emulate aws` running\?")


@pytest.mark.usefixtures("made")
def test_a_region_in_which_it_is_not(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSD_AWS_REGION", "eu-north-1")
    asked = ("queue", "sqs", "object", "status", "doctor")
    refused(commands, "no.* deployment '?demo'?.*in eu-north-1; run: fsd deploy aws --name demo$", asked)


def test_a_deployment_that_is_not_there(commands: Commands) -> None:
    asked = ("queue", "sqs", "object", "status", "doctor")
    refused(commands, "no.* deployment '?demo'?.*; run: fsd deploy aws --name demo$", asked)
    done = fsd(*commands["destroy"])
    assert (done.exit_code, done.output) == (0, "nothing to remove\n")


@pytest.mark.usefixtures("made")
def test_more_workers_than_the_deployment_is_for(commands: Commands) -> None:
    commands = {name: (*commands[name], "--workers", "4") for name in ("queue", "sqs", "object")}
    refused(commands, "4 workers are more than the 3 .* at once; take fewer, or a deployment for more")


@pytest.mark.usefixtures("made")
def test_a_bucket_that_is_gone(commands: Commands, make_backend: BackendMaker) -> None:
    s3 = make_backend().clients.client("s3")
    for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]:
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    s3.delete_bucket(Bucket=BUCKET)
    refused(commands, f"bucket {BUCKET} is gone; {REMAKE}$", ("queue", "sqs", "object", "deploy", "doctor"))
    done = fsd(*commands["status"])
    assert (done.exit_code, done.stderr) == (
        1,
        f"fsd: error: deployment 'demo' is not ready; bucket {BUCKET} is gone; {REMAKE}\n",
    )
    for name in ("destroy", "deploy"):
        assert fsd(*commands[name]).exit_code == 0


@pytest.mark.usefixtures("made")
def test_a_function_that_is_gone(commands: Commands, make_backend: BackendMaker) -> None:
    make_backend().clients.client("lambda").delete_function(FunctionName="fsd-demo")
    refused(commands, f"function fsd-demo is gone; {REMAKE}$", ("queue", "sqs", "object"))
    assert f"function fsd-demo is gone; {REMAKE}\n" in fsd(*commands["status"]).stderr
