"""Deployments from first to last, by Google's own clients over sockets, on local Google Cloud."""

from __future__ import annotations

import json

import pytest
from google.api_core.exceptions import RetryError
from google.auth.exceptions import TransportError
from google.oauth2.credentials import Credentials as UserCredentials
from google.pubsub_v1.types import Topic
from typer.testing import CliRunner, Result

from fsd_emulators.gcp.environment import PROJECT
from fsd_emulators.gcp.functions import FunctionsServer
from fsd_gcp import GcpBackend
from fsd_gcp.deploy import access, provisioner
from fsd_gcp.deploy.resources import find_queues
from fsdcore.cli.app import app
from fsdcore.errors import AccessDeniedError, ConfigError, DeploymentMissingError
from tests.backends.gcp.deploy.conftest import BackendMaker


class StopAt:
    """An observer that stops the program, as Ctrl-C does, at the first word of a task."""

    def __init__(self, task: str) -> None:
        self.task = task

    def progress(self, task: str, done: int, total: int) -> None:
        del done, total
        if task == self.task:
            raise KeyboardInterrupt


def queues(backend: GcpBackend) -> tuple[list[str], list[str]]:
    return find_queues(backend.clients, PROJECT, "demo")


def fsd(*command: str) -> Result:
    return CliRunner().invoke(app, command)


def test_deploy_makes_everything_and_destroy_leaves_nothing(make_backend: BackendMaker) -> None:
    backend = make_backend(lanes=2)
    status = backend.provisioner().deploy(3)
    assert (status.ready, status.workers, status.problem) == (True, 3, "")
    assert "6 topics, 6 subscriptions" in status.resources
    bucket = backend.clients.storage.get_bucket(f"fsd-demo-{PROJECT}")
    (function,) = backend.clients.functions.list_functions(parent=backend.deployment.parent)
    assert function.labels["fsd-deployment"] == "demo"
    assert backend.deployment.workers == 3
    removal = backend.provisioner().destroy()
    assert removal.left == ()
    account = f"service account fsd-demo@{PROJECT}.iam.gserviceaccount.com"
    assert account in status.resources
    builder = f"service account fsdb-demo@{PROJECT}.iam.gserviceaccount.com"
    gone = (
        "function fsd-demo",
        "image of fsd-demo",
        "6 topics, 6 subscriptions",
        f"bucket {bucket.name} with 0 objects",
        builder,
        account,
    )
    assert removal.removed == gone
    assert queues(backend) == ([], [])
    assert backend.clients.storage.lookup_bucket(bucket.name) is None
    assert list(backend.clients.functions.list_functions(parent=function.name.partition("/functions")[0])) == []
    assert backend.provisioner().destroy().removed == ()


def test_deploying_again_changes_nothing(make_backend: BackendMaker, functions: FunctionsServer) -> None:
    backend = make_backend()
    first = backend.provisioner().deploy(2)
    assert backend.provisioner().deploy(2) == first
    assert (functions.log.count("create"), functions.log.count("update")) == (1, 0)


def test_more_workers_and_then_fewer(make_backend: BackendMaker) -> None:
    backend = make_backend()
    for workers in (2, 4, 1):
        assert backend.provisioner().deploy(workers).workers == workers
        assert [len(names) for names in queues(backend)] == [workers, workers]


def test_what_differs_is_changed(make_backend: BackendMaker) -> None:
    make_backend(ack_deadline=20).provisioner().deploy(1)
    backend = make_backend(ack_deadline=30, memory_mb=512)
    assert backend.provisioner().deploy(1).ready
    (name,) = queues(backend)[1]
    assert backend.clients.subscriber.get_subscription(subscription=name).ack_deadline_seconds == 30
    function = backend.clients.functions.get_function(name=backend.deployment.function)
    assert function.service_config.available_memory == "512Mi"


def test_a_topic_made_anew_gets_a_subscription_anew(make_backend: BackendMaker) -> None:
    backend = make_backend()
    backend.provisioner().deploy(1)
    (topic,), (subscription,) = queues(backend)
    backend.clients.publisher.delete_topic(topic=topic)
    assert "missing" in backend.provisioner().status().problem
    assert backend.provisioner().deploy(1).ready
    assert backend.clients.subscriber.get_subscription(subscription=subscription).topic == topic


@pytest.mark.parametrize("task", ["topics", "roles", "uploading", "deploying the function"])
def test_a_stopped_deploy_goes_on(make_backend: BackendMaker, task: str) -> None:
    backend = make_backend()
    backend.observer = StopAt(task)
    with pytest.raises(KeyboardInterrupt):
        backend.provisioner().deploy(2)
    assert make_backend().provisioner().deploy(2).ready


@pytest.mark.parametrize("task", ["topics", "roles", "uploading", "deploying the function"])
def test_a_stopped_deploy_can_be_destroyed(make_backend: BackendMaker, task: str) -> None:
    backend = make_backend()
    backend.observer = StopAt(task)
    with pytest.raises(KeyboardInterrupt):
        backend.provisioner().deploy(2)
    again = make_backend().provisioner()
    assert again.destroy().left == ()
    assert again.status().resources == ()


def test_what_bears_the_label_goes_and_what_does_not_stays(make_backend: BackendMaker) -> None:
    backend = make_backend()
    backend.provisioner().deploy(1)
    publisher = backend.clients.publisher
    for name, label in (("lost", "demo"), ("fsd-demo-alike", "demo2")):
        publisher.create_topic(
            request=Topic(name=f"projects/{PROJECT}/topics/{name}", labels={"fsd-deployment": label})
        )
    assert backend.provisioner().destroy().left == ()
    left = [topic.name.rpartition("/")[2] for topic in publisher.list_topics(project=f"projects/{PROJECT}")]
    assert left == ["fsd-demo-alike"]


def test_parts_that_are_missing_are_told(make_backend: BackendMaker) -> None:
    backend = make_backend()
    backend.provisioner().deploy(1)
    backend.clients.storage.bucket(f"fsd-demo-{PROJECT}").delete()
    status = backend.provisioner().status()
    assert not status.ready
    assert status.problem == f"the bucket fsd-demo-{PROJECT} is missing; run: fsd deploy gcp --name demo"
    with pytest.raises(DeploymentMissingError, match="bucket"):
        backend.store.put("k", b"")


def a_person(backend: GcpBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have somebody be logged in, though local servers need nobody."""
    monkeypatch.setattr(type(backend.settings), "emulated", False)
    monkeypatch.setattr(access, "identity", lambda *_: "user:ann@example.com")


def test_status_tells_whose_the_credentials_are(
    make_backend: BackendMaker, monkeypatch: pytest.MonkeyPatch, functions: FunctionsServer
) -> None:
    backend = make_backend()
    assert not any("credentials" in line for line in backend.provisioner().deploy(1).resources)
    local = "credentials: none needed: local servers stand in for Google's"
    assert backend.provisioner().status().resources[-1] == local
    a_person(backend, monkeypatch)
    who = f"user:ann@example.com, project {PROJECT}"
    assert backend.provisioner().status().resources[-1] == f"credentials: {who}"
    backend.provisioner().destroy()
    # That there is nothing may be since one is somebody else, and so may a refusal.
    status = backend.provisioner().status()
    assert status.resources == ()
    assert status.problem.endswith(f"; run: fsd deploy gcp --name demo (the credentials are of {who})")
    functions.management.denied_projects.add(PROJECT)
    with pytest.raises(AccessDeniedError, match=rf"does not exist, or .* \(the credentials are of {who}\)"):
        backend.provisioner().status()
    functions.management.denied_projects.clear()


@pytest.mark.parametrize("error", [RetryError("Timeout of 120.0s exceeded", cause=None), TransportError("reset")])
def test_a_deploy_goes_on_where_it_is_not_found_out_who_deploys(
    make_backend: BackendMaker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def unknown(*_: object) -> str:
        raise error

    backend = make_backend()
    for module in (access, provisioner):
        monkeypatch.setattr(module, "identity", unknown)
    status = backend.provisioner().deploy(1)
    assert status.ready
    assert any(line.startswith("not found out who deploys: ") for line in status.resources)
    monkeypatch.setattr(type(backend.settings), "emulated", False)
    assert next(iter(backend.checks(1))).ok
    assert backend.provisioner().status().ready


@pytest.mark.parametrize(
    ("members", "person", "may_be_caller"),
    [
        ("", True, False),
        ("user:ann@example.com", True, True),
        ("group:team@example.com", True, True),
        ("principal://iam.googleapis.com/locations/global/workforcePools/p/subject/s", True, False),
        ("", False, False),
        ("user:ann@example.com", False, False),
        ("group:team@example.com", False, True),
        ("principal://iam.googleapis.com/locations/global/workforcePools/p/subject/s", False, True),
    ],
)
def test_who_deploys_may_be_one_of_the_callers_though_it_is_not_told_who_it_is(
    make_backend: BackendMaker, monkeypatch: pytest.MonkeyPatch, members: str, person: bool, may_be_caller: bool
) -> None:
    asked: list[bool] = []

    def awaited(_: object, __: object, is_caller: bool, ___: object, may_be_caller: bool) -> list[str]:
        assert not is_caller
        asked.append(may_be_caller)
        return []

    backend = make_backend(callers=members)
    # Made with credentials that local servers take, before these are somebody's.
    for client in ("rest", "storage", "functions"):
        getattr(backend.clients, client)
    if person:
        given = UserCredentials(None, refresh_token="r", token_uri="u", client_id="i", client_secret="s")
        backend.clients.__dict__["_found"] = given, ""
    monkeypatch.setattr(provisioner, "identity", lambda *_: "")
    monkeypatch.setattr(provisioner, "await_working", awaited)
    backend.provisioner().deploy(1)
    assert asked == [may_be_caller]


def test_describe_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FSD_GCP_PROJECT", "FSD_GCP_REGION", "FSD_GCP_FUNCTIONS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    done = fsd("deploy", "gcp", "--dry-run", "--max-workers", "3")
    assert done.exit_code == 0
    described = json.loads(done.stdout)
    assert len(described["topics"]) == len(described["subscriptions"]) == 3
    assert described["function"]["service_config"]["max_instance_count"] == 3
    assert described["service account"] == "fsd-fsd@PROJECT.iam.gserviceaccount.com"
    assert {(grant["role"], grant["on"]) for grant in described["roles"] if grant["workers"]} == {
        ("roles/pubsub.publisher", "topic"),
        ("roles/pubsub.subscriber", "subscription"),
        ("roles/storage.objectUser", "bucket"),
        ("roles/run.invoker", "service"),
    }
    assert all(grant["why"] for grant in described["roles"])


def test_a_deployment_needs_a_region(make_backend: BackendMaker) -> None:
    with pytest.raises(ConfigError, match="FSD_GCP_REGION"):
        make_backend(region="").provisioner().status()


def test_the_commands(make_backend: BackendMaker) -> None:
    del make_backend
    missing = fsd("status", "gcp", "--name", "demo")
    assert missing.exit_code == 2
    assert fsd("deploy", "gcp", "--name", "demo", "--max-workers", "8").exit_code == 0
    shown = fsd("status", "gcp", "--name", "demo")
    assert (shown.exit_code, "ready for runs of up to 8 workers" in shown.stdout) == (0, True)
    told = fsd("doctor", "gcp", "--set", "name=demo")
    assert told.exit_code == 0, told.stdout
    removed = fsd("destroy", "gcp", "--name", "demo", "--yes")
    assert (removed.exit_code, "removed: function fsd-demo" in removed.stdout) == (0, True)
