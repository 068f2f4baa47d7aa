"""What builds the function: an account of its own, with roles for that alone, or one that the settings bring."""

from __future__ import annotations

import pytest

from fsd_emulators.gcp.environment import PROJECT
from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.management import Management
from fsd_gcp.deploy import project
from fsd_gcp.deploy.project import ROLES
from fsdcore.contracts.backend import Check
from fsdcore.errors import ConfigError, FsdError
from fsdcore.record.observer import Silent
from tests.backends.gcp.deploy.conftest import BackendMaker

POLICIES = "cloudresourcemanager.googleapis.com"
BUILDER = f"fsdb-demo@{PROJECT}.iam.gserviceaccount.com"
OTHER = f"builds@{PROJECT}.iam.gserviceaccount.com"


@pytest.fixture
def new_project(management: Management) -> Management:
    """One whose default account may not build."""
    management.default_builds = False
    return management


def test_a_new_project_can_build(make_backend: BackendMaker, new_project: Management) -> None:
    backend = make_backend()
    assert backend.provisioner().deploy(1).ready
    held = new_project.bindings(f"projects/{PROJECT}")
    assert held == {role: {f"serviceAccount:{BUILDER}"} for role in ROLES}
    assert f"service account {BUILDER}" in backend.provisioner().destroy().removed
    assert BUILDER not in new_project.accounts
    assert new_project.bindings(f"projects/{PROJECT}") == {}


def test_roles_of_others_on_the_project_stay(make_backend: BackendMaker, new_project: Management) -> None:
    backend = make_backend()
    theirs = {"bindings": [{"role": ROLES[0], "members": ["user:ann@example.com"]}]}
    url = f"https://cloudresourcemanager.googleapis.com/v1/projects/{PROJECT}:setIamPolicy"
    backend.clients.rest.post(url, {"policy": theirs})
    assert backend.provisioner().deploy(1).ready
    backend.provisioner().destroy()
    assert new_project.bindings(f"projects/{PROJECT}") == {ROLES[0]: {"user:ann@example.com"}}


def test_an_account_can_be_brought(
    make_backend: BackendMaker, new_project: Management, functions: FunctionsServer
) -> None:
    backend = make_backend(build_account=OTHER)
    name = f"projects/{PROJECT}/serviceAccounts/{OTHER}"
    new_project.accounts[OTHER] = {"name": name, "uniqueId": "1"}
    with pytest.raises(FsdError, match=rf"{OTHER} does not have roles/logging\.logWriter") as caught:
        backend.provisioner().deploy(1)
    assert f"--member serviceAccount:{OTHER} --role {ROLES[0]}" in str(caught.value)
    url = f"https://cloudresourcemanager.googleapis.com/v1/projects/{PROJECT}:setIamPolicy"
    bindings = [{"role": role, "members": [f"serviceAccount:{OTHER}"]} for role in ROLES]
    backend.clients.rest.post(url, {"policy": {"bindings": bindings}})
    assert backend.provisioner().deploy(1).ready
    assert BUILDER not in new_project.accounts
    (function,) = backend.clients.functions.list_functions(parent=backend.deployment.parent)
    assert function.build_config.service_account == name
    backend.provisioner().destroy()
    assert OTHER in new_project.accounts


def test_who_may_not_give_roles_builds_with_what_the_project_has(
    make_backend: BackendMaker, management: Management
) -> None:
    management.forbidden_apis.add(POLICIES)
    status = make_backend().provisioner().deploy(1)
    assert status.ready
    assert any("default account builds the function" in line and ROLES[1] in line for line in status.resources)
    assert BUILDER not in management.accounts


class Told(Silent):
    """An observer that hears what a user should know, and when."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        self.lines.append(task)

    def notice(self, text: str) -> None:
        self.lines.append(text)


def test_what_builds_instead_is_told_at_once_and_with_the_failure(
    make_backend: BackendMaker, new_project: Management
) -> None:
    new_project.forbidden_apis |= {POLICIES, "cloudquotas.googleapis.com"}
    backend = make_backend()
    backend.observer = told = Told()
    with pytest.raises(FsdError, match="Build failed: The service account running this build") as caught:
        backend.provisioner().deploy(21)
    quotas, default = [line for line in told.lines if "so its default account builds" in line or "quotas" in line]
    assert told.lines.index(quotas) < told.lines.index(default) < told.lines.index("deploying the function")
    assert str(caught.value).endswith(f"; {quotas}; {default}")


def test_who_may_not_give_roles_builds_with_the_account_that_is_there(
    make_backend: BackendMaker, new_project: Management
) -> None:
    """A colleague without rights on the project must not take from the deployment what builds it."""
    make_backend().provisioner().deploy(1)
    new_project.forbidden_apis.add(POLICIES)
    status = make_backend(memory_mb=512).provisioner().deploy(2)
    assert status.ready
    assert any(f"{BUILDER}, which is there, builds the function" in line for line in status.resources)
    assert BUILDER in new_project.accounts
    assert new_project.bindings(f"projects/{PROJECT}") == {role: {f"serviceAccount:{BUILDER}"} for role in ROLES}


def test_a_service_that_is_not_enabled_is_no_want_of_rights(
    make_backend: BackendMaker, new_project: Management, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be disabled after the deploy has looked."""
    backend, enable = make_backend(), f"the API {POLICIES} is not enabled; run: gcloud services enable"
    monkeypatch.setattr(project, "APIS", ("run.googleapis.com",))
    new_project.disabled_apis.add(POLICIES)
    with pytest.raises(ConfigError, match=enable):
        backend.provisioner().deploy(1)
    new_project.disabled_apis.clear()
    backend.provisioner().deploy(1)
    new_project.disabled_apis.add(POLICIES)
    with pytest.raises(ConfigError, match=enable):
        list(backend.checks(1))
    # The account stays till its roles can be taken from it, and the rest goes.
    removal = backend.provisioner().destroy()
    (left,) = removal.left
    assert left.startswith(f"service account {BUILDER}: {enable}")
    assert "function fsd-demo" in removal.removed
    new_project.disabled_apis.clear()
    assert backend.provisioner().destroy().removed == (f"service account {BUILDER}",)
    assert new_project.bindings(f"projects/{PROJECT}") == {}


def test_a_function_is_built_anew_by_another_account(make_backend: BackendMaker, management: Management) -> None:
    make_backend().provisioner().deploy(1)
    name = f"projects/{PROJECT}/serviceAccounts/{OTHER}"
    management.accounts[OTHER] = {"name": name, "uniqueId": "1"}
    backend = make_backend(build_account=OTHER)
    with pytest.raises(FsdError, match=f"{OTHER} does not have"):
        backend.provisioner().deploy(1)
    back = make_backend()
    assert back.provisioner().deploy(1).ready
    (function,) = back.clients.functions.list_functions(parent=back.deployment.parent)
    assert function.build_config.service_account.endswith(f"/{BUILDER}")


def test_doctor_tells_of_a_builder_that_there_is_not_or_that_is_anothers(
    make_backend: BackendMaker, management: Management
) -> None:
    def builder(**settings: str) -> Check:
        (found,) = [check for check in make_backend(**settings).checks(1) if check.name == "builder"]
        return found

    missing = builder(build_account=OTHER)
    assert (missing.ok, missing.detail, missing.remedy) == (False, f"{OTHER} does not exist", "correct build_account")
    name = f"projects/{PROJECT}/serviceAccounts/{BUILDER}"
    management.accounts[BUILDER] = {"name": name, "uniqueId": "1", "description": "theirs"}
    assert not builder().ok
    assert f"service account {BUILDER} is not described as" in builder().detail


@pytest.mark.parametrize(
    ("closed", "said"),
    [(False, "ok    builder: fsdb-demo@"), (True, "ok    builder: not known what fsdb-demo@")],
)
def test_doctor_looks_at_the_builder(
    closed: bool, said: str, make_backend: BackendMaker, management: Management
) -> None:
    backend = make_backend()
    backend.provisioner().deploy(1)
    if closed:
        management.forbidden_apis.add(POLICIES)
    lines = [f"{'ok' if check.ok else 'FAIL':<5} {check.name}: {check.detail}" for check in backend.checks(1)]
    assert any(line.startswith(said) for line in lines), lines


def test_doctor_names_the_command_for_roles_that_are_missing(
    make_backend: BackendMaker, management: Management
) -> None:
    name = f"projects/{PROJECT}/serviceAccounts/{OTHER}"
    management.accounts[OTHER] = {"name": name, "uniqueId": "1"}
    backend = make_backend(build_account=OTHER)
    (found,) = [check for check in backend.checks(1) if check.name == "builder"]
    assert not found.ok
    assert f"--member serviceAccount:{OTHER} --role {ROLES[0]}" in found.remedy
    # One that is yet to be made is no fault.
    (own,) = [check for check in make_backend().checks(1) if check.name == "builder"]
    assert (own.ok, own.detail) == (True, "made by the first deploy")
