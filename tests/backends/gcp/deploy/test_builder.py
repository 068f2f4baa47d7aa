"""What builds the function: an account of its own, with roles for that alone, or one that the settings bring."""

from __future__ import annotations

import pytest

from backends.gcp.deploy.builder import ROLES
from backends.gcp.emulator.environment import PROJECT
from backends.gcp.emulator.functions import FunctionsServer
from backends.gcp.emulator.management import Management
from fsdcore.errors import ConfigError, FsdError
from tests.backends.gcp.deploy.conftest import BackendMaker

POLICIES = "cloudresourcemanager.googleapis.com"
BUILDER = f"fsd-demo-b@{PROJECT}.iam.gserviceaccount.com"
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
    with pytest.raises(FsdError, match=f"The service account {OTHER} does not exist"):
        backend.provisioner().deploy(1)
    name = f"projects/{PROJECT}/serviceAccounts/{OTHER}"
    new_project.accounts[OTHER] = {"name": name, "uniqueId": "1"}
    with pytest.raises(FsdError, match=rf"{OTHER} does not have roles/logging\.logWriter"):
        backend.provisioner().deploy(1)
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
    management.closed.add(POLICIES)
    status = make_backend().provisioner().deploy(1)
    assert status.ready
    assert any("default account builds the function" in line and ROLES[1] in line for line in status.resources)
    assert BUILDER not in management.accounts


@pytest.mark.parametrize(
    ("closed", "said"),
    [(False, "ok    builder: fsd-demo-b@"), (True, "ok    builder: not known what fsd-demo-b@")],
)
def test_doctor_looks_at_the_builder(
    closed: bool, said: str, make_backend: BackendMaker, management: Management
) -> None:
    backend = make_backend()
    backend.provisioner().deploy(1)
    if closed:
        management.closed.add(POLICIES)
    lines = [f"{'ok' if check.ok else 'FAIL':<5} {check.name}: {check.detail}" for check in backend.checks(1)]
    assert any(line.startswith(said) for line in lines), lines


def test_doctor_names_the_command_for_roles_that_are_missing(
    make_backend: BackendMaker, management: Management
) -> None:
    backend = make_backend(build_account=OTHER)
    (found,) = [check for check in backend.checks(1) if check.name == "builder"]
    assert not found.ok
    assert f"--member serviceAccount:{OTHER} --role {ROLES[0]}" in found.remedy
    # One that is yet to be made is no fault.
    (own,) = [check for check in make_backend().checks(1) if check.name == "builder"]
    assert (own.ok, own.detail) == (True, "made by the first deploy")


def test_only_service_accounts_build(make_backend: BackendMaker) -> None:
    with pytest.raises(ConfigError, match="build_account must be the e-mail of a service account"):
        make_backend(build_account="ann@example.com")
