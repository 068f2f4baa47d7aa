"""The service account and the roles, by the real calls of IAM and of each service over sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import cast
from urllib.parse import parse_qs

import pytest
from aiohttp.web import BaseRequest, StreamResponse, json_response
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials, Credentials
from google.oauth2.credentials import Credentials as UserCredentials

from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.management import Management
from fsd_emulators.web import WebServer, whole_body
from fsd_gcp.calls.rest import Rest
from fsd_gcp.deploy import access
from fsd_gcp.deploy import project as builder_roles
from fsd_gcp.deploy.settling import Settling
from fsd_gcp.deployment import Deployment
from fsd_gcp.settings import GcpSettings
from fsdcore.errors import ConfigError
from tests.backends.gcp.deploy.conftest import BackendMaker

ACCOUNT = f"fsd-demo@{PROJECT}.iam.gserviceaccount.com"
WORKERS = f"serviceAccount:{ACCOUNT}"
ANN, ROBOT = "user:ann@example.com", "serviceAccount:123-compute@developer.gserviceaccount.com"
# Of these some may be service accounts, which start workers as themselves.
TEAM = "group:team@example.com"
POD = "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/subject/x"
PLACE = f"projects/{PROJECT}/locations/{REGION}"
DEPLOYMENT = Deployment.of(GcpSettings(name="demo", region=REGION), project=PROJECT, workers=2)


@pytest.fixture
def rest(functions: FunctionsServer) -> Iterator[Rest]:
    with closing(Rest(AnonymousCredentials(), functions.url)) as made:
        yield made


def topic(rank: int) -> str:
    return f"projects/{PROJECT}/topics/fsd-demo-0-{rank}"


def test_every_role_is_on_a_resource_of_the_deployment_alone(
    make_backend: BackendMaker, management: Management
) -> None:
    callers = (ANN, ROBOT, TEAM, POD)
    status = make_backend(callers=",".join(callers)).provisioner().deploy(2)
    assert f"callers: {', '.join(callers)}" in status.resources
    everybody = {WORKERS, *callers}
    for rank in range(2):
        assert management.bindings(topic(rank)) == {"roles/pubsub.publisher": everybody}
        subscription = topic(rank).replace("/topics/", "/subscriptions/")
        assert management.bindings(subscription) == {"roles/pubsub.subscriber": everybody}
    assert management.bindings(f"b/fsd-demo-{PROJECT}") == {"roles/storage.objectUser": everybody}
    assert management.bindings(f"{PLACE}/services/fsd-demo") == {"roles/run.invoker": {WORKERS, ROBOT, TEAM, POD}}
    assert management.bindings(f"{PLACE}/functions/fsd-demo") == {"roles/cloudfunctions.viewer": set(callers)}
    borrowing = management.bindings(f"projects/{PROJECT}/serviceAccounts/{ACCOUNT}")
    assert borrowing == {"roles/iam.serviceAccountOpenIdTokenCreator": set(callers)}
    builder = f"serviceAccount:fsdb-demo@{PROJECT}.iam.gserviceaccount.com"
    assert management.bindings(f"projects/{PROJECT}") == {role: {builder} for role in builder_roles.ROLES}
    assert management.accounts[ACCOUNT]["description"] == f"workers of fsd deployment demo in {REGION}"


def test_the_function_runs_as_the_account_and_destroy_removes_it(
    make_backend: BackendMaker, management: Management
) -> None:
    backend = make_backend()
    backend.provisioner().deploy(1)
    function = backend.clients.functions.get_function(name=backend.deployment.function)
    assert function.service_config.service_account_email == ACCOUNT
    backend.provisioner().destroy()
    assert management.accounts == {}
    assert management.bindings(f"{PLACE}/services/fsd-demo") == {}


def test_status_tells_of_an_account_that_is_gone(
    make_backend: BackendMaker, rest: Rest, management: Management
) -> None:
    provisioner = make_backend().provisioner()
    provisioner.deploy(1)
    access.remove_account(rest, DEPLOYMENT)
    assert f"the service account {ACCOUNT} is missing" in provisioner.status().problem
    assert not any(WORKERS in members for members in management.bindings(topic(0)).values())
    # A new account of the same name has none of the roles of the old one.
    assert provisioner.deploy(1).ready
    assert WORKERS in management.bindings(topic(0))["roles/pubsub.publisher"]


@pytest.mark.parametrize(
    ("path", "api", "missing"),
    [
        (f"v2/{PLACE}/services/fsd-demo:setIamPolicy", "run", "roles/run.invoker on 1 service;"),
        (f"v1/{topic(1)}:setIamPolicy", "pubsub", "roles/pubsub.publisher on 1 topic;"),
        (
            f"v1/{topic(0)}:setIamPolicy".replace("/topics/", "/subscriptions/"),
            "pubsub",
            "roles/pubsub.subscriber on 1 subscription;",
        ),
        (f"storage/v1/b/fsd-demo-{PROJECT}/iam", "storage", "roles/storage.objectUser on 1 bucket;"),
    ],
)
def test_status_tells_of_a_role_that_was_taken_away(
    make_backend: BackendMaker, rest: Rest, management: Management, path: str, api: str, missing: str
) -> None:
    provisioner = make_backend().provisioner()
    provisioner.deploy(2)
    url = f"https://{api}.googleapis.com/{path}"
    if api == "storage":
        rest.put(url, {"bindings": []})
    else:
        rest.post(url, {"policy": {"bindings": []}})
    assert f"the service account lacks {missing}" in provisioner.status().problem
    # Whoever may not look at these policies is told of the rest.
    management.forbidden_apis.add(f"{api}.googleapis.com")
    assert provisioner.status().ready
    management.forbidden_apis.clear()
    # A service that is not enabled is no matter of who asks.
    management.disabled_apis.add(f"{api}.googleapis.com")
    with pytest.raises(ConfigError, match=f"the API {api}.googleapis.com is not enabled"):
        provisioner.status()
    management.disabled_apis.clear()
    assert provisioner.deploy(2).ready


def test_status_counts_the_resources_that_a_role_is_missing_on(make_backend: BackendMaker, rest: Rest) -> None:
    provisioner = make_backend(lanes=2).provisioner()
    provisioner.deploy(2)
    for rank in range(2):
        rest.post(f"https://pubsub.googleapis.com/v1/{topic(rank)}:setIamPolicy", {"policy": {"bindings": []}})
    rest.put(f"https://storage.googleapis.com/storage/v1/b/fsd-demo-{PROJECT}/iam", {"bindings": []})
    lacks = "lacks roles/storage.objectUser on 1 bucket, roles/pubsub.publisher on 2 topics; run: fsd deploy"
    assert lacks in provisioner.status().problem


def test_roles_of_others_are_kept(rest: Rest, management: Management) -> None:
    access.make_account(rest, DEPLOYMENT)
    url, own = f"https://pubsub.googleapis.com/v1/{topic(0)}", "roles/pubsub.publisher"
    limited = {"role": own, "members": [WORKERS], "condition": {"title": "for a day", "expression": "true"}}
    rest.post(f"{url}:setIamPolicy", {"policy": {"bindings": [{"role": "roles/x", "members": [ANN]}, limited]}})
    access.give(rest, DEPLOYMENT, [ROBOT], function=False)
    kept = rest.get(f"{url}:getIamPolicy")
    assert kept["bindings"][:2] == [{"role": "roles/x", "members": [ANN]}, limited]
    assert management.bindings(topic(0)) == {"roles/x": {ANN}, own: {WORKERS, ROBOT}}
    access.give(rest, DEPLOYMENT, [ROBOT], function=False)
    assert rest.get(f"{url}:getIamPolicy") == kept


@pytest.mark.parametrize("trouble", ["unknown_times", "rival_writes"])
def test_a_policy_is_written_again_until_it_holds(rest: Rest, management: Management, trouble: str) -> None:
    access.make_account(rest, DEPLOYMENT)
    setattr(management, trouble, 3)
    settling = Settling(ACCOUNT)
    settling.began()
    access.give(rest, DEPLOYMENT, [ANN], function=False, settling=settling)
    assert getattr(management, trouble) == 0
    assert all(management.bindings(topic(rank)) == {"roles/pubsub.publisher": {WORKERS, ANN}} for rank in range(2))
    borrowing = management.bindings(f"projects/{PROJECT}/serviceAccounts/{ACCOUNT}")
    assert borrowing == {"roles/iam.serviceAccountOpenIdTokenCreator": {ANN}}


def test_another_refusal_of_a_policy_is_raised(rest: Rest, functions: FunctionsServer) -> None:
    access.make_account(rest, DEPLOYMENT)
    functions.management.disabled_apis.add("pubsub.googleapis.com")
    with pytest.raises(exceptions.Forbidden, match="has not been used"):
        access.give(rest, DEPLOYMENT, [], function=False)


def test_an_account_is_made_and_removed_once(rest: Rest, management: Management) -> None:
    for _ in range(2):
        access.make_account(rest, DEPLOYMENT)
    assert list(management.accounts) == [ACCOUNT]
    assert [access.remove_account(rest, DEPLOYMENT) for _ in range(2)] == [True, False]
    assert not access.find_account(rest, DEPLOYMENT)


class TokenServer(WebServer):
    """Gives a person's tokens: one that is asked for without scopes is for all that the person agreed to."""

    async def answer(self, request: BaseRequest) -> StreamResponse:
        asked = parse_qs((await whole_body(request)).decode())
        return json_response({"access_token": "narrow" if "scope" in asked else "wide", "expires_in": 3600})


@pytest.fixture
def token_uri() -> Iterator[str]:
    server = TokenServer()
    server.open()
    yield f"{server.url}/token"
    server.end()


@pytest.fixture
def person(token_uri: str) -> UserCredentials:
    """As the credentials of a person are found, for Google Cloud alone."""
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    return UserCredentials(
        None, refresh_token="r", token_uri=token_uri, client_id="i", client_secret="s", scopes=scopes
    )


def test_a_person_is_known_by_the_address(
    rest: Rest, functions: FunctionsServer, management: Management, person: UserCredentials
) -> None:
    management.emails = {"wide": "ann@example.com", "narrow": ""}
    # Asked by the narrow one, too, the service may look at that alone.
    with closing(Rest(person, functions.url)) as made:
        assert access.identity(person, made) == ANN
    management.emails["wide"] = ""
    assert access.identity(person, rest) == ""


class MachineCredentials:
    """What is asked of the credentials of a machine."""

    service_account_email, email = "default", ACCOUNT

    def refresh(self, request: object) -> None:
        del request
        self.service_account_email = self.email


def test_a_machine_may_be_of_a_person(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MachineCredentials, "email", "ann@example.com")
    assert access.identity(cast(Credentials, MachineCredentials()), rest) == ANN


def test_a_service_account_is_known_by_its_credentials(rest: Rest) -> None:
    assert access.identity(cast(Credentials, MachineCredentials()), rest) == WORKERS
    assert access.identity(AnonymousCredentials(), rest) == ""
