"""What is not a deployment's own is refused before anything is made, and left when the deployment goes."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from google.cloud.functions_v2 import CreateFunctionRequest
from google.pubsub_v1.types import Subscription, Topic

from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.management import Management
from fsd_gcp import GcpBackend, GcpSettings
from fsd_gcp.deploy.function import function_of
from fsd_gcp.deployment import Deployment
from fsdcore.errors import ConfigError
from tests.backends.gcp.deploy.conftest import BackendMaker
from tests.backends.gcp.deploy.test_project import refused

ELSEWHERE = "us-central1"
OURS = {"fsd-deployment": "demo"}
TOPIC = f"projects/{PROJECT}/topics/fsd-demo-0-0"
NO_LABEL = "has no label fsd-deployment = demo, so it was made for something else"


def account(management: Management, name: str, description: str) -> str:
    """One that is there already."""
    email = f"{name}@{PROJECT}.iam.gserviceaccount.com"
    resource = f"projects/{PROJECT}/serviceAccounts/{email}"
    management.accounts[email] = {"name": resource, "uniqueId": "1", "email": email, "description": description}
    return email


def not_deployed(backend: GcpBackend, functions: FunctionsServer) -> str:
    """What a deploy says, which must have made nothing."""
    accounts = set(functions.management.accounts)
    with pytest.raises(ConfigError) as caught:
        backend.provisioner().deploy(1)
    assert functions.log.count("create") == 0
    assert set(functions.management.accounts) == accounts
    assert backend.clients.storage.lookup_bucket(f"fsd-demo-{PROJECT}") is None
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("fsd-demo", ""),
        ("fsd-demo", "workers of fsd deployment other"),
        ("fsd-demo", f"workers of fsd deployment other in {REGION}"),
        # So was the account named that builds for the deployment ``de`` of a release before, were ``demo`` ``de-b``.
        ("fsd-demo", "builds of fsd deployment demo"),
        ("fsdb-demo", "reads the files of the accounts"),
    ],
)
def test_an_account_of_others_is_refused_and_left(
    make_backend: BackendMaker, functions: FunctionsServer, name: str, described: str
) -> None:
    backend, email = make_backend(), account(functions.management, name, described)
    task = "workers" if name == "fsd-demo" else "builds"
    why = f"service account {email} is not described as '{task} of fsd deployment demo in {REGION}'"
    assert not_deployed(backend, functions).startswith(why)
    removal = backend.provisioner().destroy()
    assert (removal.removed, removal.left) == ((), (f"{why}, so it was made for something else",))
    assert set(functions.management.accounts) == {email}


def test_accounts_of_earlier_releases_stay_usable(make_backend: BackendMaker, management: Management) -> None:
    backend, email = make_backend(), account(management, "fsd-demo", "workers of fsd deployment demo")
    assert backend.provisioner().deploy(1).ready
    assert f"service account {email}" in backend.provisioner().destroy().removed


@pytest.mark.parametrize("kind", ["topic", "subscription"])
def test_a_topic_or_subscription_of_others_is_refused_and_left(
    make_backend: BackendMaker, functions: FunctionsServer, kind: str
) -> None:
    backend = make_backend()
    clients, subscription = backend.clients, TOPIC.replace("/topics/", "/subscriptions/")
    named = TOPIC if kind == "topic" else f"projects/{PROJECT}/topics/theirs"
    clients.publisher.create_topic(request=Topic(name=named))
    if kind == "subscription":
        clients.subscriber.create_subscription(request=Subscription(name=subscription, topic=named))
    why = f"{kind} fsd-demo-0-0 {NO_LABEL}"
    assert not_deployed(backend, functions) == f"{why}; remove it, or take another --name"
    removal = backend.provisioner().destroy()
    assert (removal.removed, removal.left) == ((), (why,))
    assert [topic.name for topic in clients.publisher.list_topics(project=f"projects/{PROJECT}")] == [named]


def test_a_function_of_others_is_refused_and_left_with_its_image(
    make_backend: BackendMaker, functions: FunctionsServer
) -> None:
    backend = make_backend()
    place, client = f"projects/{PROJECT}/locations/{REGION}", backend.clients.functions
    deployment = Deployment.of(GcpSettings(name="demo", region=REGION), project=PROJECT, workers=1)
    theirs = function_of(deployment, "0")
    theirs.labels, theirs.service_config.service_account_email = {}, ""
    # It has no source, so its build fails, and there it is.
    made = client.create_function(
        request=CreateFunctionRequest(parent=place, function=theirs, function_id="fsd-demo"), timeout=30.0
    )
    assert made.exception(timeout=60.0) is not None
    functions.management.keep_image(theirs.name)
    functions.log.clear()
    assert not_deployed(backend, functions).startswith(f"function fsd-demo {NO_LABEL}; ")
    status = backend.provisioner().status()
    assert status.resources == ()
    assert f"function fsd-demo {NO_LABEL}" in status.problem
    removal = backend.provisioner().destroy()
    assert (removal.removed, removal.left) == ((), (f"function fsd-demo {NO_LABEL}",))
    assert functions.log.count("delete") == 0
    assert functions.management.images[place] == {"local--project__europe--west1__fsd--demo"}


def everything(backend: GcpBackend, management: Management) -> tuple[Any, ...]:
    """What there is, of all regions."""
    clients = backend.clients
    return (
        sorted(management.accounts),
        [bucket.name for bucket in clients.storage.list_buckets(prefix="fsd-demo")],
        [topic.name for topic in clients.publisher.list_topics(project=f"projects/{PROJECT}")],
        [function.name for function in clients.functions.list_functions(parent=f"projects/{PROJECT}/locations/-")],
    )


def test_a_deployment_is_not_touched_from_another_region(make_backend: BackendMaker, management: Management) -> None:
    here, there = make_backend(), make_backend(region=ELSEWHERE)
    here.provisioner().deploy(2)
    before = everything(here, management)
    for command in ("deploy", "destroy"):
        line = refused(command, "gcp", *(("--yes",) if command == "destroy" else ()), *named(ELSEWHERE))
        assert f"belongs to the deployment 'demo' in {REGION}, not {ELSEWHERE}; set FSD_GCP_REGION={REGION}" in line
    told = refused("status", "gcp", *named(ELSEWHERE))
    assert f"none in {ELSEWHERE} of project {PROJECT}, and bucket fsd-demo-{PROJECT} belongs" in told
    assert not there.provisioner().status().resources
    assert everything(here, management) == before
    assert here.provisioner().status().ready


def named(region: str) -> tuple[str, ...]:
    return ("--name", "demo", "--set", f"region={region}")


@pytest.mark.parametrize("kind", ["topic", "account"])
def test_each_resource_tells_its_region(make_backend: BackendMaker, functions: FunctionsServer, kind: str) -> None:
    """Also where there is no bucket, which lies somewhere."""
    backend = make_backend()
    if kind == "topic":
        topic = Topic(name=TOPIC, labels={**OURS, "fsd-region": ELSEWHERE})
        backend.clients.publisher.create_topic(request=topic)
    else:
        account(functions.management, "fsd-demo", f"workers of fsd deployment demo in {ELSEWHERE}")
    assert f"belongs to the deployment 'demo' in {ELSEWHERE}, not {REGION}" in not_deployed(backend, functions)
    with pytest.raises(ConfigError, match=f"in {ELSEWHERE}, not {REGION}; set FSD_GCP_REGION={ELSEWHERE}"):
        backend.provisioner().destroy()
    assert not_deployed(backend, functions)
    # What the end of the test removes is of this region.
    functions.management.accounts.clear()
    for found in backend.clients.publisher.list_topics(project=f"projects/{PROJECT}"):
        backend.clients.publisher.delete_topic(topic=found.name)


def test_topics_of_earlier_releases_are_brought_along(make_backend: BackendMaker) -> None:
    backend = make_backend()
    backend.clients.publisher.create_topic(request=Topic(name=TOPIC, labels=OURS))
    assert backend.provisioner().deploy(1).ready
    assert "1 topics, 1 subscriptions" in backend.provisioner().destroy().removed


def accounts(name: str) -> set[str]:
    made = Deployment.of(GcpSettings(name=name, region=REGION), project=PROJECT, workers=1)
    return {made.service_account, made.build_account}


NAMES = hypothesis.strategies.from_regex(r"[a-z]([a-z0-9-]|-b|b-){0,10}[a-z0-9]", fullmatch=True)


@hypothesis.given(NAMES.filter(lambda name: len(name) <= 24), NAMES.filter(lambda name: len(name) <= 24))
def test_no_two_deployments_share_an_account(one: str, other: str) -> None:
    assert all(6 <= len(email.partition("@")[0]) <= 30 for email in accounts(one))
    assert one == other or accounts(one).isdisjoint(accounts(other))


def test_the_longest_name_has_accounts() -> None:
    assert all(len(email.partition("@")[0]) <= 30 for email in accounts("n" * 24))


def test_deployments_whose_names_are_alike_live_side_by_side(make_backend: BackendMaker) -> None:
    for name in ("demo-b", "demo"):
        assert make_backend(name=name).provisioner().deploy(1).ready
    make_backend(name="demo").provisioner().destroy()
    assert make_backend(name="demo-b").provisioner().status().ready
    assert make_backend(name="demo-b").provisioner().destroy().left == ()
