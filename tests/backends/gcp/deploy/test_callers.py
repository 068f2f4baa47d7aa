"""Who only runs, and has no role on the project, is told of a deployment what may be seen of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsd_emulators.gcp.environment import PROJECT
from fsd_emulators.gcp.management import Management
from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_emulators.gcp.storage import StorageServer
from fsd_gcp import GcpBackend
from fsdcore.errors import AccessDeniedError, ConfigError, FsdError
from fsdcore.faults import Refuse
from fsdcore.record.observer import Silent
from tests.backends.gcp.deploy.conftest import BackendMaker

CLOSED = {f"{name}.googleapis.com" for name in ("cloudquotas", "cloudresourcemanager", "iam", "serviceusage")}


@pytest.fixture
def caller(
    make_backend: BackendMaker, management: Management, cloud_storage: StorageServer, pubsub: PubsubServer
) -> Iterator[GcpBackend]:
    """With a deployment that others made; nothing on the project may be looked at."""
    backend = make_backend()
    backend.provisioner().deploy(2)
    management.forbidden_apis |= CLOSED
    cloud_storage.faults.set(Refuse("bucket", error="PERMISSION_DENIED"))
    pubsub.faults.set(Refuse("ListTopics ListSubscriptions", error="PERMISSION_DENIED"))
    yield backend
    cloud_storage.faults.set()
    pubsub.faults.set()


def test_status_tells_what_was_not_seen(caller: GcpBackend) -> None:
    status = caller.provisioner().status()
    assert (status.ready, status.workers, status.problem) == (True, 2, "")
    assert [line for line in status.resources if line.startswith("function fsd-demo: active")]
    assert any(line.startswith("not seen: User not authorized") for line in status.resources)
    assert sum(line.startswith("not seen: ") for line in status.resources) == 3


def test_doctor_passes_over_what_is_not_seen(caller: GcpBackend) -> None:
    checks = list(caller.checks(2))
    assert all(check.ok for check in checks), checks
    details = {check.name: check.detail for check in checks}
    assert details["services"].startswith("not known: ")
    assert details["builder"].startswith("not known: ")
    assert details["deployment"] == "demo, for up to 2 workers"


class Heard(Silent):
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        del done, total
        self.tasks.append(task)

    @property
    def waits(self) -> int:
        """How often something was to be repeated."""
        return self.tasks.count("waiting for what was just made")


@pytest.mark.parametrize("setting", ["callers", "build_account"])
def test_an_account_that_does_not_exist_is_one_line_before_anything_is_made(
    make_backend: BackendMaker, management: Management, setting: str
) -> None:
    email = f"typo@{PROJECT}.iam.gserviceaccount.com"
    backend = make_backend(**{setting: f"serviceAccount:{email}" if setting == "callers" else email})
    backend.observer = heard = Heard()
    with pytest.raises(ConfigError) as caught:
        backend.provisioner().deploy(2)
    assert str(caught.value) == f"{setting}: the service account {email} does not exist"
    assert (management.accounts, heard.waits) == ({}, 0)


# The second has the address of our own account within its own.
@pytest.mark.parametrize("email", ["ann@exmple.com", f"x-fsd-demo@{PROJECT}.iam.gserviceaccount.com.example.com"])
def test_a_caller_who_does_not_exist_is_one_line_at_once(
    make_backend: BackendMaker, management: Management, email: str
) -> None:
    backend = make_backend(callers=f"user:{email}")
    management.missing_members.add(f"user:{email}")
    backend.observer = heard = Heard()
    with pytest.raises(FsdError, match=rf"giving roles: .*User {email} does not exist") as caught:
        backend.provisioner().deploy(2)
    assert "\n" not in str(caught.value)
    assert heard.waits == 0


def test_a_caller_who_does_not_exist_is_not_waited_for_with_our_account(
    make_backend: BackendMaker, management: Management
) -> None:
    """Some policies say that the new account is not known yet, and one that the caller is a mistake."""
    backend = make_backend(callers="user:ann@exmple.com")
    management.missing_members.add("user:ann@exmple.com")
    management.unknown_times = 3
    backend.observer = heard = Heard()
    with pytest.raises(FsdError, match=r"User ann@exmple\.com does not exist"):
        backend.provisioner().deploy(2)
    # Two minutes are eighteen of them, for each policy.
    assert heard.waits < 10


def test_who_may_not_see_the_policy_of_the_account_is_told_at_once(
    make_backend: BackendMaker, management: Management
) -> None:
    """Of an account that was just made it could be that it is not known yet."""
    backend = make_backend(callers="user:ann@example.com")
    backend.provisioner().deploy(1)
    management.unknown_times = 1
    backend.observer = heard = Heard()
    with pytest.raises(AccessDeniedError, match=r"giving roles: .*iam\.serviceAccounts\.getIamPolicy"):
        backend.provisioner().deploy(1)
    assert heard.waits == 0


def test_a_quota_that_is_not_seen_is_told_where_a_new_projects_would_not_do(
    make_backend: BackendMaker, management: Management
) -> None:
    management.forbidden_apis.add("cloudquotas.googleapis.com")
    few, many = make_backend().provisioner().deploy(2), make_backend().provisioner().deploy(21)
    assert not any("quotas" in line for line in few.resources)
    assert any(
        "in a new project it is usually 20 of this size, and 21 may be wanted" in line for line in many.resources
    )
