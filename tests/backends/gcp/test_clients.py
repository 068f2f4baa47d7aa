"""Clients of Google's libraries: where they go, and what is said where they cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import google.auth
import pytest
import requests
from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.auth import compute_engine
from google.oauth2.credentials import Credentials as UserCredentials

from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_emulators.gcp.storage import StorageServer
from fsd_emulators.processes import free_port
from fsd_gcp import GcpBackend, GcpSettings
from fsd_gcp.calls.clients import Clients, Endpoints
from fsd_gcp.calls.connections import NothingListensError, go_direct
from fsd_gcp.calls.errors import translated
from fsdcore.client.config import load_config
from fsdcore.errors import ConfigError, ServerError, StoreError
from fsdcore.faults import Disconnect

PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "grpc_proxy")
SOON = 20.0


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> str:
    """A proxy that is not there, in all variables."""
    proxy = f"http://127.0.0.1:{free_port()}"
    for name in PROXIES:
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return proxy


@pytest.mark.usefixtures("proxied")
def test_services_of_this_machine_are_asked_past_a_proxy(
    cloud_storage: StorageServer, pubsub: PubsubServer, functions: FunctionsServer
) -> None:
    clients = Clients(Endpoints(cloud_storage.url, pubsub.target, functions.url), PROJECT)
    assert clients.storage.lookup_bucket("none-of-this-name", timeout=SOON) is None
    assert list(clients.publisher.list_topics(project=f"projects/{PROJECT}", timeout=SOON)) == []
    assert list(clients.functions.list_functions(parent=f"projects/{PROJECT}/locations/{REGION}", timeout=SOON)) == []
    with pytest.raises(NotFound):
        clients.functions.delete_function(name=f"projects/{PROJECT}/locations/{REGION}/functions/none", timeout=SOON)
    with pytest.raises(NotFound):
        clients.functions.get_operation(request={"name": "projects/p/locations/l/operations/none"}, timeout=SOON)
    with pytest.raises(NotFound):
        clients.functions.transport.operations_client.get_operation(name="projects/p/locations/l/operations/none")
    with pytest.raises(NotFound):
        clients.rest.get("https://service.example/v1/nothing")
    clients.close()


def test_others_are_asked_through_it(proxied: str) -> None:
    session = requests.Session()
    go_direct(session, "http://service.example")
    with pytest.raises(requests.exceptions.ProxyError, match=proxied.rpartition(":")[2]):
        session.get("http://service.example/", timeout=SOON)
    session.close()


@pytest.fixture
def nowhere() -> Clients:
    """Clients of services that do not run."""
    http = f"http://127.0.0.1:{free_port()}"
    return Clients(Endpoints(http, http.removeprefix("http://"), http), PROJECT)


ASKED: dict[str, Callable[[Clients], Any]] = {
    "storage": lambda clients: clients.storage.bucket("b").blob("k").download_as_bytes(),
    "put": lambda clients: clients.storage.bucket("b").blob("k").upload_from_string(b"x"),
    "functions": lambda clients: clients.functions.get_function(name=f"projects/{PROJECT}/locations/x/functions/f"),
    "rest": lambda clients: clients.rest.get("https://run.googleapis.com/v2/x"),
    "publisher": lambda clients: clients.publisher,
    "subscriber": lambda clients: clients.subscriber,
}


@pytest.mark.parametrize("kind", ASKED)
def test_where_nobody_listens_that_is_said_at_once(
    nowhere: Clients, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(seconds: float) -> None:
        raise AssertionError(f"a pause of {seconds} s")

    monkeypatch.setattr("time.sleep", never)
    said = r"nothing listens at \S*127\.0\.0\.1:\d+; is `fsd emulate gcp` running\?$"
    with pytest.raises((StoreError, ServerError), match=said), translated("asking", StoreError):
        ASKED[kind](nowhere)
    nowhere.close()


def test_what_may_pass_is_tried_again(cloud_storage: StorageServer) -> None:
    clients = Clients(Endpoints(cloud_storage.url), PROJECT)
    cloud_storage.faults.set(Disconnect(share=0.5, seed=1))
    for number in range(4):
        clients.storage.lookup_bucket(f"none-{number}", timeout=SOON)
    assert not issubclass(NothingListensError, (requests.ConnectionError, ConnectionError, GoogleAPICallError))
    clients.close()


BAD = ["127.0.0.1:4443", "http://", "http://127.0.0.1:99999", "http://127.0.0.1: 80", "http://127.0.0.1:0", "ftp://a"]
BAD_TARGETS = ["127.0.0.1", "http://127.0.0.1:80", "127.0.0.1:99999", "127.0.0.1: 80", ":80", "127.0.0.1:0"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *((name, value) for name in ("STORAGE", "FUNCTIONS") for value in BAD),
        *(("PUBSUB", value) for value in BAD_TARGETS),
    ],
)
def test_an_endpoint_that_is_none_is_named_by_its_variable(variable: str, value: str) -> None:
    name = f"FSD_GCP_{variable}_ENDPOINT"
    with pytest.raises(ConfigError, match=rf"^environment {name}: gcp\.\w+_endpoint must be such as") as caught:
        load_config(environ={"FSD_BACKEND": "gcp", name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["127.0.0.1:4443", "http://", "http://127.0.0.1:99999"])
def test_a_variable_of_googles_libraries_is_named_too(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", value)
    settings = GcpSettings(project=PROJECT, region=REGION, functions_endpoint="http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"^STORAGE_EMULATOR_HOST must be such as http://127\.0\.0\.1:4443"):
        _ = GcpBackend(settings).clients.storage


def test_a_token_that_no_header_can_hold_is_not_told() -> None:
    with pytest.raises(StoreError) as caught, translated("asking", StoreError):
        requests.get("http://127.0.0.1:1", headers={"Authorization": "Bearer SECRETWORD\r\n"}, timeout=SOON)
    assert "SECRETWORD" not in str(caught.value)


@pytest.mark.parametrize(("own", "counted"), [(None, "p-of-settings"), ("p-of-login", "p-of-login")])
def test_a_persons_calls_are_counted_for_a_project(
    own: str | None, counted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = UserCredentials(None, refresh_token="r", quota_project_id=own)
    monkeypatch.setattr(google.auth, "default", lambda scopes: (person, None))
    found: Any = Clients(Endpoints(), "p-of-settings").credentials
    assert found.quota_project_id == counted


def test_an_accounts_calls_are_counted_for_its_own_project(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = compute_engine.Credentials()
    monkeypatch.setattr(google.auth, "default", lambda scopes: (machine, "p"))
    assert Clients(Endpoints(), "p-of-settings").credentials is machine
