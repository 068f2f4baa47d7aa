"""A deploy ends when its deployment works: roles that were just given take minutes to be in force."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests

from backends.gcp import GcpBackend
from backends.gcp.deploy.working import await_working
from backends.gcp.emulator.functions import FunctionsFaults, FunctionsServer
from backends.gcp.emulator.management import Management
from backends.gcp.emulator.pubsub import PubsubFaults, PubsubServer
from backends.gcp.emulator.storage import StorageFaults, StorageServer
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import AccessDeniedError, DeploymentError
from fsdcore.events import SILENT
from fsdcore.testing.clock import ManualClock
from tests.backends.gcp.deploy.conftest import BackendMaker


class Heals:
    """An observer that mends what is wrong when it hears of the second look."""

    def __init__(self, mend: Callable[[], None]) -> None:
        self._mend, self.looks = mend, 0

    def progress(self, task: str, done: int, total: int) -> None:
        if task == "roles in force":
            self.looks += done < total
            if self.looks == 2:
                self._mend()


@pytest.fixture
def deployed(make_backend: BackendMaker) -> GcpBackend:
    backend = make_backend()
    assert backend.provisioner().deploy(2).ready
    return backend


def lasting(backend: GcpBackend) -> str:
    """What is said of a lack that lasts."""
    with pytest.raises(DeploymentError, match="after 10 minutes there is still lacking: ") as caught:
        await_working(backend.deployment, backend.tokens.token, True, SILENT, ManualClock())
    assert "\n" not in str(caught.value)
    return str(caught.value).partition("lacking: ")[2]


def test_a_deploy_waits_until_workers_may_call_the_function(make_backend: BackendMaker, management: Management) -> None:
    def mend() -> None:
        management.late_until = 0.0

    backend = make_backend()
    management.late_until = SYSTEM_CLOCK.wall() + 3_600.0
    backend.observer = observer = Heals(mend)
    assert backend.provisioner().deploy(2).ready
    assert observer.looks == 2


def test_a_deploy_waits_until_workers_may_write_send_and_receive(
    deployed: GcpBackend, cloud_storage: StorageServer, pubsub: PubsubServer
) -> None:
    def mend() -> None:
        cloud_storage.faults, pubsub.faults = StorageFaults(), PubsubFaults()

    cloud_storage.faults = StorageFaults(denied=1.0, kinds=("put",), within="/runs/")
    pubsub.faults = PubsubFaults(denied=1.0, methods=("Pull",))
    observer = Heals(mend)
    assert await_working(deployed.deployment, deployed.tokens.token, True, observer) == []
    assert observer.looks == 2


def test_a_role_that_stays_away_is_named(
    deployed: GcpBackend, cloud_storage: StorageServer, pubsub: PubsubServer, management: Management
) -> None:
    bucket = deployed.deployment.bucket
    cloud_storage.faults = StorageFaults(denied=1.0, kinds=("put",), within="/runs/")
    assert lasting(deployed) == f"roles/storage.objectUser on bucket {bucket}"
    cloud_storage.faults = StorageFaults()
    management.late_until = SYSTEM_CLOCK.wall() + 3_600.0
    assert lasting(deployed) == "roles/run.invoker on function fsd-demo"
    management.late_until = 0.0
    pubsub.faults = PubsubFaults(denied=1.0, methods=("Publish",))
    assert lasting(deployed) == ", ".join(f"roles/pubsub.publisher on topics/fsd-demo-0-{rank}" for rank in range(2))
    pubsub.faults = PubsubFaults(denied=1.0, methods=("Pull",))
    assert "roles/pubsub.subscriber on subscriptions/fsd-demo-0-1" in lasting(deployed)


def test_a_function_that_does_not_answer_is_told(deployed: GcpBackend, functions: FunctionsServer) -> None:
    functions.faults = FunctionsFaults(unavailable=1.0)
    assert lasting(deployed) == "function fsd-demo: HTTP 503: Service Unavailable"


def refused() -> str:
    raise AccessDeniedError("no")


def test_who_deploys_and_may_not_run_is_not_kept_waiting(deployed: GcpBackend) -> None:
    assert await_working(deployed.deployment, refused, False, SILENT) == [
        "not tried, since whoever deploys may not run (no)"
    ]
    with pytest.raises(DeploymentError, match=r"roles/iam\.serviceAccountOpenIdTokenCreator on the service account"):
        await_working(deployed.deployment, refused, True, SILENT, ManualClock())


def test_a_trial_leaves_nothing_and_takes_nothing(
    deployed: GcpBackend, cloud_storage: StorageServer, pubsub: PubsubServer
) -> None:
    """In the middle of a run, say, whose messages are waiting."""
    topic = deployed.deployment.topic(0, 1)
    deployed.clients.publisher.publish(request={"topic": topic, "messages": [{"data": b"of a run"}]})
    assert await_working(deployed.deployment, deployed.tokens.token, True, SILENT) == []
    assert deployed.store.list("runs/") == []
    assert list(pubsub.backlog().values()) == [1]
    subscription = deployed.deployment.subscription(0, 1)
    found = deployed.clients.subscriber.pull(request={"subscription": subscription, "max_messages": 10}, timeout=20.0)
    assert [item.message.data for item in found.received_messages] == [b"of a run"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[{}]", b'[{"role": 1}]', b"\xff"])
def test_an_answer_that_is_none_is_told(deployed: GcpBackend, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(*_: object, **__: object) -> requests.Response:
        made = requests.Response()
        made.status_code, made._content = 200, content
        return made

    monkeypatch.setattr(requests.Session, "post", answered)
    assert "function fsd-demo: its answer is none: " in lasting(deployed)
