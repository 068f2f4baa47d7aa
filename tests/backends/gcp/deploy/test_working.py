"""A deploy ends when its deployment works: roles that were just given take minutes to be in force."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest

from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.management import Management
from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_emulators.gcp.storage import StorageServer
from fsd_gcp import GcpBackend, GcpSettings
from fsd_gcp.calls.asking import TRIAL, Lack, NoWayError, Trial
from fsd_gcp.deploy import working
from fsd_gcp.deploy.working import await_working
from fsd_gcp.deployment import Deployment
from fsd_gcp.trial import tried
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import (
    AccessDeniedError,
    ComputeError,
    ConfigError,
    CredentialsError,
    DeploymentError,
    DeploymentMissingError,
    FsdError,
)
from fsdcore.faults import Refuse
from fsdcore.record.observer import SILENT
from fsdcore.testing.clock import VirtualClock
from tests.backends.gcp.deploy.conftest import BackendMaker
from tests.backends.gcp.stubs import CUT, SILENCE, Reply, Stub, by_worker

PLACES = 2


class Heals:
    """An observer that mends what is wrong when it hears of the second look."""

    def __init__(self, mend: Callable[[], None]) -> None:
        self._mend, self.looks = mend, 0

    def progress(self, task: str, done: int, total: int) -> None:
        if task == "roles in force":
            self.looks += done < total
            if self.looks == 2:
                self._mend()


class Listens:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.notices = list[str]()

    def progress(self, task: str, done: int, total: int) -> None:
        del task, done, total

    def notice(self, text: str) -> None:
        self.notices.append(text)


@pytest.fixture
def deployed(make_backend: BackendMaker) -> GcpBackend:
    backend = make_backend()
    assert backend.provisioner().deploy(2).ready
    return backend


@pytest.fixture
def stub() -> Iterator[Stub]:
    """In place of the function; all is well with it."""
    made = Stub(lambda _: well())
    yield made
    made.close()


def well(tried: int = PLACES, *lacks: Lack) -> Reply:
    return by_worker(200, msgspec.json.encode(Trial(list(lacks), tried)))


def at(stub: Stub, workers: int = PLACES) -> Deployment:
    settings = GcpSettings(name="demo", region="europe-west4", functions_endpoint=stub.url, timeout_seconds=7)
    return Deployment.of(settings, project="some-project", workers=workers)


def granted(seconds: float) -> str:
    assert seconds > 0
    return "t"


def lasting(of: GcpBackend | Stub, token: Callable[[float], str] = granted) -> str:
    """What is said of a lack that lasts."""
    deployment, clock = of.deployment if isinstance(of, GcpBackend) else at(of), VirtualClock()
    with pytest.raises(DeploymentError, match="after 10 minutes there is still lacking: ") as caught:
        await_working(deployment, token, True, SILENT, clock)
    assert 590.0 <= clock.now() <= 600.0
    assert str(caught.value).isprintable()
    return str(caught.value).partition("lacking: ")[2]


class LateRoles(Heals):
    """Has no role be in force any more once the function has been built."""

    def __init__(self, management: Management) -> None:
        super().__init__(lambda: setattr(management, "roles_late_until", 0.0))
        self._management = management

    def progress(self, task: str, done: int, total: int) -> None:
        if task == "deploying the function" and done == total:
            self._management.roles_late_until = SYSTEM_CLOCK.wall() + 3_600.0
        super().progress(task, done, total)


def test_a_deploy_waits_until_workers_may_call_the_function(make_backend: BackendMaker, management: Management) -> None:
    backend = make_backend()
    backend.observer = observer = LateRoles(management)
    assert backend.provisioner().deploy(2).ready
    assert observer.looks == 2


def test_a_deploy_waits_until_workers_may_write_send_and_receive(
    deployed: GcpBackend, cloud_storage: StorageServer, pubsub: PubsubServer
) -> None:
    def mend() -> None:
        cloud_storage.faults.set()
        pubsub.faults.set()

    cloud_storage.faults.set(Refuse("put", "/runs/", error="PERMISSION_DENIED"))
    pubsub.faults.set(Refuse("Pull", error="PERMISSION_DENIED"))
    observer = Heals(mend)
    assert await_working(deployed.deployment, deployed.tokens.token, True, observer) == []
    assert observer.looks == 2


def test_a_role_that_stays_away_is_named_with_what_the_service_said(
    deployed: GcpBackend, cloud_storage: StorageServer, pubsub: PubsubServer, management: Management
) -> None:
    bucket = deployed.deployment.bucket
    cloud_storage.faults.set(Refuse("put", "/runs/", error="PERMISSION_DENIED"))
    assert lasting(deployed).startswith(f"roles/storage.objectUser on bucket {bucket} (writing ")
    cloud_storage.faults.set()
    management.roles_late_until = SYSTEM_CLOCK.wall() + 3_600.0
    assert lasting(deployed) == (
        "roles/run.invoker on function fsd-demo (HTTP 403: The caller does not have permission run.routes.invoke.)"
    )
    management.roles_late_until = 0.0
    pubsub.faults.set(Refuse("Publish", error="PERMISSION_DENIED"))
    both = ", ".join(f"roles/pubsub.publisher on topics/fsd-demo-0-{rank}" for rank in range(2))
    assert lasting(deployed) == f"{both} (User not authorized to perform this action.)"
    pubsub.faults.set(Refuse("Pull", error="PERMISSION_DENIED"))
    assert "roles/pubsub.subscriber on subscriptions/fsd-demo-0-1" in lasting(deployed)


def test_a_function_that_does_not_answer_is_told(deployed: GcpBackend, functions: FunctionsServer) -> None:
    functions.faults.set(Refuse("invoke"))
    assert lasting(deployed) == "function fsd-demo: HTTP 503: Service Unavailable"


def test_starts_that_workers_try_in_vain_are_lacking(deployed: GcpBackend, functions: FunctionsServer) -> None:
    """Answers that no worker gave do not show that a worker can be started."""
    functions.faults.set(Refuse("invoke", error="RESOURCE_EXHAUSTED"))
    assert [str(lack) for lack in tried(deployed, 0, 20.0).lacks] == ["function fsd-demo: HTTP 429: Rate exceeded."]


class Tokens:
    """Each token is the next of `given`, the last for ever; errors are raised."""

    def __init__(self, *given: str | FsdError) -> None:
        self._given, self.asked = given, 0

    def __call__(self, seconds: float) -> str:
        assert 0 < seconds <= 30.0
        given = self._given[min(self.asked, len(self._given) - 1)]
        self.asked += 1
        if isinstance(given, FsdError):
            raise given
        return given


@pytest.mark.parametrize("kind", [ComputeError, AccessDeniedError, DeploymentMissingError])
def test_an_identity_that_is_not_lent_yet_is_waited_for(stub: Stub, kind: type[FsdError]) -> None:
    error, clock = kind("the service said no"), VirtualClock()
    tokens, listens = Tokens(error, error, "t"), Listens()
    assert await_working(at(stub), tokens, True, listens, clock) == []
    assert (tokens.asked, len(stub.asked)) == (3, 1)
    said = "the identity to call the function with: the service said no"
    assert listens.notices == [f"waiting, since there is still lacking: {said}"]
    assert lasting(stub, Tokens(error)) == said


@pytest.mark.parametrize("error", [CredentialsError("revoked"), ConfigError("no proxy"), NoWayError("no way")])
def test_what_no_time_mends_ends_the_wait_at_once(stub: Stub, error: FsdError) -> None:
    clock = VirtualClock()
    with pytest.raises(type(error), match=error.message):
        await_working(at(stub), Tokens(error), True, SILENT, clock)
    assert clock.now() == 0.0


@pytest.mark.parametrize("passing", [CUT, Reply(502, b"<html>bad"), Reply(200, b"<html>in"), Reply(302), Reply(404)])
def test_whatever_may_pass_is_waited_for(stub: Stub, passing: Reply) -> None:
    stub.answers = lambda _: passing if len(stub.asked) < 3 else well()
    assert await_working(at(stub), granted, True, SILENT, VirtualClock()) == []
    assert len(stub.asked) == 3


def test_what_is_lacking_now_is_told_as_it_changes(stub: Stub) -> None:
    replies = [Reply(403, b"not you"), Reply(403, b"not you"), well(0, Lack("a/role", "it", "no")), well()]
    stub.answers = lambda _: replies[len(stub.asked) - 1]
    listens = Listens()
    assert await_working(at(stub), granted, True, listens, VirtualClock()) == []
    assert listens.notices == [
        f"waiting, since there is still lacking: {what}"
        for what in ("roles/run.invoker on function fsd-demo (HTTP 403: not you)", "a/role on it (no)")
    ]


@pytest.mark.parametrize(("may_be_caller", "seconds"), [(False, 60.0), (True, 600.0)])
@pytest.mark.parametrize("lends", [False, True])
def test_who_deploys_and_may_perhaps_not_run_is_waited_for_and_no_error(
    stub: Stub, lends: bool, may_be_caller: bool, seconds: float
) -> None:
    stub.answers, clock = lambda _: Reply(403, b"no"), VirtualClock()
    tokens = Tokens("t" if lends else AccessDeniedError("no"))
    notes = await_working(at(stub), tokens, False, SILENT, clock, may_be_caller=may_be_caller)
    assert notes == [f"not tried, since whoever deploys may not run ({'HTTP 403: ' if lends else ''}no)"]
    assert seconds - 6.0 < clock.now() <= seconds


def test_a_member_of_a_group_whose_role_comes_late_is_no_note(stub: Stub) -> None:
    tokens, clock = Tokens(*[AccessDeniedError("not yet")] * 20, "t"), VirtualClock()
    assert await_working(at(stub), tokens, False, SILENT, clock, may_be_caller=True) == []
    assert clock.now() > 200.0


def test_the_wait_is_over_in_time_where_nobody_answers(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "_LONGEST_SECONDS", 1.5)
    monkeypatch.setattr(working, "_LEAST_SECONDS", 0.2)
    stub.answers = lambda _: SILENCE
    begin = SYSTEM_CLOCK.now()
    with pytest.raises(DeploymentError, match="the connection broke: TimeoutError"):
        await_working(at(stub), granted, True, SILENT)
    assert SYSTEM_CLOCK.now() - begin < 5.0


def test_a_function_of_little_time_tries_some_places_at_a_time(stub: Stub) -> None:
    stub.answers = lambda asked: well(min(40, int(asked.headers[TRIAL]) + 16))
    assert await_working(at(stub, workers=40), granted, True, SILENT, VirtualClock()) == []
    assert [asked.headers[TRIAL] for asked in stub.asked] == ["0", "16", "32"]


def test_a_function_of_too_little_time_is_told_so(stub: Stub) -> None:
    stub.answers = lambda _: well(0)
    assert lasting(stub).endswith("did not come to try anything; is its timeout_seconds of 7 enough?")
    stub.answers = lambda _: Reply(504, b"upstream request timeout")
    assert lasting(stub).endswith("HTTP 504: upstream request timeout; is its timeout_seconds of 7 enough?")


def test_a_trial_ends_in_its_time(stub: Stub) -> None:
    """It tells how far it came, and what did not answer: here nothing does, at the first places as many as at once."""
    stub.answers = lambda _: SILENCE
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        pubsub = f"127.0.0.1:{silent.getsockname()[1]}"
        deployment = msgspec.structs.replace(at(stub, workers=40), storage_endpoint=stub.url, pubsub_endpoint=pubsub)
        with closing(GcpBackend(deployment=deployment)) as backend:
            begin = SYSTEM_CLOCK.now()
            found = tried(backend, 0, 1.5)
            assert SYSTEM_CLOCK.now() - begin < 4.0
    assert 0 < found.tried < 40
    assert len(found.lacks) == found.tried + 2
    assert "bucket fsd-demo-some-project: no answer within 1.5 s" in map(str, found.lacks)


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


@pytest.mark.parametrize("content", [b"", b"{}", b"[{}]", b'{"lacks": [{"role": 1}], "tried": 2}', b"\xff"])
def test_an_answer_that_is_none_is_told(stub: Stub, content: bytes) -> None:
    stub.answers = lambda _: by_worker(200, content)
    assert "function fsd-demo: its answer is none: " in lasting(stub)
