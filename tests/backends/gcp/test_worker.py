"""The worker's side of a function: what it answers, and that an instance lives on for the next request."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_gcp import GcpSettings, worker
from fsd_gcp.backend import GcpBackend
from fsd_gcp.calls import clients as clients_module
from fsd_gcp.calls.asking import OWN, TOLD
from fsd_gcp.calls.clients import Clients, Endpoints
from fsd_gcp.deployment import VARIABLE, Deployment
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.compute import Invocation
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import ConfigError, WireError
from fsdcore.testing.clock import VirtualClock
from tests.backends.gcp.stubs import as_json, serving

SETTINGS = GcpSettings(name="demo", region="europe-west4", storage_endpoint="http://127.0.0.1:1")
DEPLOYMENT = Deployment.of(SETTINGS, project="some-project", workers=2)


class Request:
    """What of a Flask request the worker looks at."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.headers: dict[str, str] = {}

    def get_data(self) -> bytes:
        return self._data


def invocation(workers: int) -> bytes:
    order = Invocation(
        run="0" * 16,
        rank=0,
        lane=0,
        plan="p",
        batches=(1,),
        settings=RunSettings(workers=workers, branching=2, deadline_seconds=5.0),
        run_seconds=5.0,
    )
    return order.to_json()


@pytest.fixture(autouse=True)
def instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, DEPLOYMENT.to_json())
    worker._environment.cache_clear()


def test_what_is_no_invocation_is_refused() -> None:
    text, status, headers = worker.worker(Request(b"{}"))
    assert status == 400
    assert "not an invocation" in text
    assert OWN in headers


def test_more_workers_than_the_deployment_has_are_refused() -> None:
    text, status, headers = worker.worker(Request(invocation(3)))
    assert OWN in headers
    assert (text, status) == ("rank 0 of 3 workers; the deployment has 2", 400)


def test_a_worker_marks_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lacks the mark is an answer of the service, or of a proxy before it."""
    monkeypatch.setattr(worker, "run_worker", lambda *_, **__: None)
    assert worker.worker(Request(invocation(1))) == ("", 200, {OWN: "1"})

    def fail(*_: object, **__: object) -> None:
        raise WireError("no")

    monkeypatch.setattr(worker, "run_worker", fail)
    assert worker.worker(Request(invocation(1))) == ("no", 500, {OWN: "1", TOLD: "failure"})


def test_an_instance_keeps_its_clients_and_plan_parts() -> None:
    first, again = worker._environment(), worker._environment()
    assert first[0] is again[0]
    assert first[1] is again[1]
    assert first[0].deployment == DEPLOYMENT


def test_a_function_without_its_variable_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match="fsd deploy gcp"):
        worker.worker(Request(invocation(1)))


@pytest.mark.parametrize(("sent_ago", "left"), [(0.0, 895.0), (20.0, 875.0), (500.0, 835.0), (-500.0, 895.0)])
def test_the_time_of_the_function_begins_with_the_request(sent_ago: float, left: float) -> None:
    sent = f"{SYSTEM_CLOCK.wall() - sent_ago:.3f}"
    assert worker._life(900.0, sent) == pytest.approx(left, abs=5.0)


@pytest.mark.parametrize("sent", ["", "yesterday", "nan", "inf", "-inf"])
def test_a_request_that_does_not_say_when_it_was_sent_has_the_whole_time(sent: str) -> None:
    assert worker._life(900.0, sent) == 895.0


def test_a_wrong_clock_leaves_a_short_function_most_of_its_time() -> None:
    assert worker._life(60.0, "0") == 40.0


def test_clients_that_lay_idle_are_made_anew(pubsub: PubsubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = Clients(Endpoints("http://127.0.0.1:1", pubsub.target, "http://127.0.0.1:1"), "some-project")
    clock = VirtualClock()
    monkeypatch.setattr(clients_module, "SYSTEM_CLOCK", clock)
    first = clients.publisher
    clients.lie_idle()
    clock.sleep(30.0)
    clients.wake()
    assert clients.publisher is first
    clock.sleep(3_600.0)
    # Not idle, but long at work.
    clients.wake()
    assert clients.publisher is first
    clients.lie_idle()
    clock.sleep(90.0)
    clients.wake()
    assert clients.publisher is not first
    assert list(clients.publisher.list_topics(project="projects/some-project", timeout=20.0)) == []
    clients.close()


def test_connections_to_the_store_that_lay_idle_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = as_json(404, {"error": {"message": "none"}})
    with serving(lambda _: missing) as stub:
        clients, clock = Clients(Endpoints(stub.url, "127.0.0.1:1", stub.url), "some-project"), VirtualClock()
        monkeypatch.setattr(clients_module, "SYSTEM_CLOCK", clock)
        seen = []
        for idle in (30.0, 90.0, 0.0):
            assert clients.storage.lookup_bucket("b", timeout=20.0) is None
            seen.append(stub.connections)
            clients.lie_idle()
            clock.sleep(idle)
            clients.wake()
        assert seen == [1, 1, 2]
        clients.close()


def test_a_worker_loads_nothing_that_it_does_not_need() -> None:
    look = "import sys, fsd_gcp.worker; print([m for m in sys.argv[1:] if m in sys.modules])"
    needless = ["google.pubsub_v1", "google.cloud.functions_v2", "mtkahypar", "typer", "rich", "fsdcore.cli"]
    done = subprocess.run([sys.executable, "-c", look, *needless], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_inside_a_worker_the_settings_are_those_of_the_deployment() -> None:
    assert GcpBackend(deployment=DEPLOYMENT).settings == replace(SETTINGS, project="some-project")
