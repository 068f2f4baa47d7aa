"""Who only runs, and has no role on the project, is told of a deployment what may be seen of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.gcp import GcpBackend
from backends.gcp.emulator.environment import PROJECT
from backends.gcp.emulator.management import Management
from backends.gcp.emulator.pubsub import PubsubFaults, PubsubServer
from backends.gcp.emulator.storage import StorageFaults, StorageServer
from fsdcore.clock import SystemClock
from fsdcore.errors import FsdError
from tests.backends.gcp.deploy.conftest import BackendMaker

CLOSED = {f"{name}.googleapis.com" for name in ("cloudquotas", "cloudresourcemanager", "iam", "serviceusage")}


@pytest.fixture
def caller(
    make_backend: BackendMaker, management: Management, cloud_storage: StorageServer, pubsub: PubsubServer
) -> Iterator[GcpBackend]:
    """With a deployment that others made; nothing on the project may be looked at."""
    backend = make_backend()
    backend.provisioner().deploy(2)
    management.closed |= CLOSED
    cloud_storage.faults = StorageFaults(denied=1.0, kinds=("bucket",))
    pubsub.faults = PubsubFaults(denied=1.0, methods=("ListTopics", "ListSubscriptions"))
    yield backend
    cloud_storage.faults, pubsub.faults = StorageFaults(), PubsubFaults()


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


def test_a_caller_who_does_not_exist_is_one_line_at_once(make_backend: BackendMaker, management: Management) -> None:
    def slept(seconds: float) -> None:
        raise AssertionError(f"waited for {seconds} s")

    backend = make_backend(callers=f"serviceAccount:typo@{PROJECT}.iam.gserviceaccount.com")
    told = pytest.raises(FsdError, match=r"giving roles: .*Service account typo@.* does not exist")
    with pytest.MonkeyPatch.context() as patch, told as caught:
        patch.setattr(SystemClock, "sleep", lambda self, seconds: slept(seconds))
        backend.provisioner().deploy(2)
    assert "\n" not in str(caught.value)


def test_a_quota_that_is_not_seen_is_told_where_a_new_projects_would_not_do(
    make_backend: BackendMaker, management: Management
) -> None:
    management.closed.add("cloudquotas.googleapis.com")
    few, many = make_backend().provisioner().deploy(2), make_backend().provisioner().deploy(21)
    assert not any("quotas" in line for line in few.resources)
    assert any(
        "in a new project it is usually 20 of this size, and 21 may be wanted" in line for line in many.resources
    )
