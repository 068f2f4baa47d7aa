"""How workers are started: by requests that are held, repeated where no worker began, and answered for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import msgspec
import pytest
from google.auth.credentials import AnonymousCredentials

from fsd_gcp import GcpBackend, GcpSettings
from fsd_gcp.calls.asking import TOLD, NoWayError
from fsd_gcp.calls.identity import IdentityTokens
from fsd_gcp.compute import GcpCompute
from fsd_gcp.deployment import Deployment
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.compute import Exit, Invocation
from fsdcore.contracts.limits import ComputeCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import (
    AccessDeniedError,
    ComputeError,
    CredentialsError,
    DeploymentMissingError,
    FsdError,
    StoreError,
)
from tests.backends.gcp.stubs import CUT, SILENCE, Asked, Reply, Stub, by_worker

RUN = "0" * 16
PAGE = Reply(200, b"<html>\n<title>sign in</title>", {"Content-Type": "text/html"})


class Service(Stub):
    """A function that answers each request with the next of `replies`, the last for ever; 0 for no answer.

    A 200 is a worker's, and so is what is `told`; all else is the service's.
    """

    def __init__(self, replies: Sequence[int | Reply], told: bool = False) -> None:
        self._replies, self._told = replies, told
        super().__init__(self._next)

    def _next(self, asked: Asked) -> Reply:
        reply = self._replies[min(len(self.asked), len(self._replies)) - 1]
        if isinstance(reply, Reply):
            return reply
        if self._told:
            return by_worker(reply, b"", **{TOLD: "failure"})
        return CUT if reply == 0 else by_worker() if reply == 200 else Reply(reply)

    @property
    def bodies(self) -> list[bytes]:
        return [asked.body for asked in self.asked]


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def start(*replies: int | Reply, told: bool = False) -> Service:
        made.append(Service(replies, told))
        return made[-1]

    yield start
    for service in made:
        service.close()


def invocation(run_seconds: float = 30.0, rank: int = 2, deadline_seconds: float = 5.0) -> Invocation:
    return Invocation(
        run=RUN,
        rank=rank,
        lane=0,
        plan="p",
        batches=(1,),
        settings=RunSettings(workers=3, branching=2, deadline_seconds=deadline_seconds),
        run_seconds=run_seconds,
    )


def compute(
    url: str,
    claimed: bool = False,
    lost: Callable[[Invocation, str], None] | None = None,
    goes_on: bool = True,
    settling: float = 0.0,
    tokens: IdentityTokens | None = None,
) -> GcpCompute:
    """`claimed`: whether the worker that is started has begun; `goes_on`: whether rank 0's mark is there."""
    limits = ComputeCapabilities(max_seconds=30.0, reports_exit=True)

    def begun(asked: Invocation) -> bool:
        return goes_on if asked.rank == 0 else claimed

    tokens = tokens or IdentityTokens(url, "", AnonymousCredentials)
    return GcpCompute(url, tokens, limits, begun, lost, settling)


def ended(started: GcpCompute) -> Sequence[Exit]:
    started.join(Deadline.after(20.0, SYSTEM_CLOCK))
    return started.exits(RUN)


def test_a_start_sends_the_invocation_and_its_answer_is_the_exit(serve: Callable[..., Service]) -> None:
    service, sent = serve(200), invocation()
    started = compute(service.url)
    started.invoke(sent)
    assert list(ended(started)) == [Exit(2, None)]
    assert [Invocation.from_json(body) for body in service.bodies] == [sent]


class Tokens(IdentityTokens):
    """Each token is the next of `given`, the last for ever; errors are raised."""

    def __init__(self, *given: str | FsdError) -> None:
        super().__init__("", "", AnonymousCredentials)
        self._given, self.asked, self.forgotten = given, list[float](), 0

    def token(self, seconds: float = 30.0) -> str:
        self.asked.append(seconds)
        given = self._given[min(len(self.asked), len(self._given)) - 1]
        if isinstance(given, FsdError):
            raise given
        return given

    def forget(self) -> None:
        self.forgotten += 1


def test_a_start_that_may_not_be_repeated_is_refused_at_once(serve: Callable[..., Service]) -> None:
    lost: list[int] = []
    tokens = Tokens("t", CredentialsError("the credentials have expired"))
    started = compute(serve(429).url, lost=lambda invocation, _: lost.append(invocation.rank), tokens=tokens)
    started.invoke(invocation())
    with pytest.raises(CredentialsError, match="have expired"):
        ended(started)
    assert lost == [2]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_start_without_an_instance_is_repeated(serve: Callable[..., Service], status: int) -> None:
    service = serve(status, status, 200)
    started = compute(service.url)
    started.invoke(invocation())
    assert list(ended(started)) == [Exit(2, None)]
    assert len(service.bodies) == 3


def test_a_worker_that_had_begun_is_not_started_again(serve: Callable[..., Service]) -> None:
    service, told = serve(503), list[str]()
    started = compute(service.url, claimed=True, lost=lambda _, error: told.append(error))
    started.invoke(invocation())
    assert [end.error for end in ended(started)] == ["HTTP 503: "]
    assert (len(service.bodies), told) == (1, ["HTTP 503: "])


def test_a_worker_that_has_told_of_its_failure_is_not_told_of_again(serve: Callable[..., Service]) -> None:
    service, told = serve(500, told=True), list[str]()
    started = compute(service.url, lost=lambda _, error: told.append(error))
    started.invoke(invocation())
    assert [end.error for end in ended(started)] == ["HTTP 500: "]
    assert (len(service.bodies), told) == (1, [])


def test_repeating_ends_with_the_run(serve: Callable[..., Service]) -> None:
    started = compute(serve(429).url)
    started.invoke(invocation(run_seconds=0.5))
    assert [end.error for end in ended(started)] == ["HTTP 429: "]


def test_a_start_of_a_run_that_was_cancelled_is_not_repeated(serve: Callable[..., Service]) -> None:
    service = serve(429)
    started = compute(service.url, goes_on=False)
    started.invoke(invocation(rank=0))
    started.cancel(RUN)
    assert [end.error for end in ended(started)] == ["HTTP 429: "]
    assert len(service.bodies) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_start_is_not_repeated_once_the_run_is_over(serve: Callable[..., Service], status: int) -> None:
    service = serve(status)
    started = compute(service.url, goes_on=False)
    started.invoke(invocation())
    assert [end.error for end in ended(started)] == [f"HTTP {status}: "]
    assert len(service.bodies) == 1


def test_a_connection_that_breaks_before_a_worker_began_is_repeated(serve: Callable[..., Service]) -> None:
    service = serve(0, 200)
    started = compute(service.url)
    started.invoke(invocation())
    assert list(ended(started)) == [Exit(2, None)]
    assert len(service.bodies) == 2


def test_a_worker_whose_connection_broke_is_waited_for_until_its_run_is_over(serve: Callable[..., Service]) -> None:
    service, told, over = serve(0), list[str](), threading.Event()
    limits = ComputeCapabilities(max_seconds=30.0, reports_exit=True)

    def begun(asked: Invocation) -> bool:
        return asked.rank != 0 or not over.is_set()

    tokens = IdentityTokens(service.url, "", AnonymousCredentials)
    started = GcpCompute(service.url, tokens, limits, begun, lambda _, error: told.append(error))
    started.invoke(invocation())
    started.join(Deadline.after(1.0, SYSTEM_CLOCK))
    assert started.exits(RUN) == ()
    over.set()
    assert list(ended(started)) == [Exit(2, None)]
    assert (len(service.bodies), told) == (1, [])


def test_a_worker_without_permission_is_asked_for_again_while_roles_settle(serve: Callable[..., Service]) -> None:
    service = serve(403, 403, 200)
    started = compute(service.url, settling=20.0)
    started.invoke(invocation())
    assert list(ended(started)) == [Exit(2, None)]
    assert len(service.bodies) == 3


def test_an_address_that_is_not_known_yet_is_asked_again_while_that_settles(serve: Callable[..., Service]) -> None:
    service = serve(404, 200)
    started = compute(service.url, settling=20.0)
    started.invoke(invocation())
    assert list(ended(started)) == [Exit(2, None)]
    assert len(service.bodies) == 2


def test_an_identity_that_is_not_known_is_asked_for_anew_once(serve: Callable[..., Service]) -> None:
    service, tokens = serve(401, 200), Tokens("old", "new")
    started = compute(service.url, tokens=tokens)
    started.invoke(invocation())
    assert list(ended(started)) == [Exit(2, None)]
    assert [asked.headers["Authorization"] for asked in service.asked] == ["Bearer old", "Bearer new"]
    assert tokens.forgotten == 1


def test_time_without_permission_is_not_taken_from_what_may_pass(serve: Callable[..., Service]) -> None:
    service = serve(403, 403, 500, 403, 500, 200)
    started = compute(service.url, settling=20.0)
    started.invoke(invocation(deadline_seconds=1.0))
    assert list(ended(started)) == [Exit(2, None)]
    assert len(service.bodies) == 6


@pytest.mark.parametrize("error", [ComputeError("the server has a cold"), AccessDeniedError("not in force yet")])
def test_a_token_that_may_be_had_later_is_asked_for_again(serve: Callable[..., Service], error: FsdError) -> None:
    service, tokens = serve(200), Tokens(error, error, "t")
    started = compute(service.url, settling=20.0, tokens=tokens)
    started.invoke(invocation())
    assert list(ended(started)) == [Exit(2, None)]
    assert (len(service.bodies), len(tokens.asked)) == (1, 3)


@pytest.mark.parametrize("error", [ComputeError("the server has a cold"), AccessDeniedError("not in force yet")])
def test_a_token_that_stays_away_is_told_when_there_is_no_time_left(
    serve: Callable[..., Service], error: FsdError
) -> None:
    service, told = serve(200), list[str]()
    started = compute(service.url, settling=1.0, tokens=Tokens(error), lost=lambda _, error: told.append(error))
    begin = SYSTEM_CLOCK.now()
    started.invoke(invocation(deadline_seconds=1.0))
    with pytest.raises(type(error), match=error.message):
        ended(started)
    assert told == [error.message]
    assert SYSTEM_CLOCK.now() - begin < 3.0
    assert service.bodies == []


def test_a_token_is_waited_for_no_longer_than_there_is_time(serve: Callable[..., Service]) -> None:
    tokens = Tokens(ComputeError("not now"), "t")
    started = compute(serve(200).url, tokens=tokens)
    started.invoke(invocation(deadline_seconds=2.0, run_seconds=3.0))
    ended(started)
    assert [seconds <= 2.0 for seconds in tokens.asked] == [True, True]


def test_a_repeated_start_tells_what_is_left_of_the_run(serve: Callable[..., Service]) -> None:
    service = serve(503, 200)
    started = compute(service.url)
    started.invoke(invocation())
    ended(started)
    first, again = (Invocation.from_json(body).run_seconds for body in service.bodies)
    assert first == 30.0
    assert 20.0 < again < 29.8


@pytest.mark.parametrize("page", [PAGE, Reply(302, b"", {"Location": "https://sign.in/"}), Reply(200, b"{}")])
def test_an_answer_that_no_worker_gave_is_no_end(serve: Callable[..., Service], page: Reply) -> None:
    service = serve(page, page, 200)
    started = compute(service.url, goes_on=False)
    started.invoke(invocation(rank=0))
    assert list(ended(started)) == [Exit(rank, None) for rank in range(3)]
    assert len(service.bodies) == 3


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (PAGE, "HTTP 200: <html> <title>sign in</title>"),
        (Reply(302, b"", {"Location": "https://sign.in/"}), "HTTP 302: to https://sign.in/"),
        (Reply(413, b"Request Entity Too Large"), "HTTP 413: Request Entity Too Large"),
    ],
)
def test_an_answer_that_no_worker_gave_is_told_with_its_beginning(
    serve: Callable[..., Service], page: Reply, said: str
) -> None:
    told: list[str] = []
    started = compute(serve(page).url, lost=lambda _, error: told.append(error), goes_on=False)
    started.invoke(invocation(rank=0, deadline_seconds=1.0))
    with pytest.raises(ComputeError, match="an answer that no worker gives") as caught:
        ended(started)
    assert said in str(caught.value)
    assert said in told[0]


def test_what_a_service_says_is_one_line_without_secrets(serve: Callable[..., Service]) -> None:
    page = Reply(400, b"bad\n\x1b[2J Authorization: Bearer abc.def.ghi " + b"x" * 5_000)
    started = compute(serve(page).url)
    started.invoke(invocation())
    with pytest.raises(ComputeError) as caught:
        ended(started)
    assert str(caught.value).isprintable()
    assert "abc.def" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_worker_that_a_page_hides_is_waited_for_until_its_run_is_over(serve: Callable[..., Service]) -> None:
    service = serve(PAGE)
    started = compute(service.url, claimed=True)
    started.invoke(invocation(run_seconds=1.5))
    assert list(ended(started)) == [Exit(2, None)]
    assert len(service.bodies) == 1


@pytest.mark.parametrize(
    ("status", "reason"), [(403, "roles/run.invoker"), (500, "HTTP 500"), (404, "no function"), (0, "connection broke")]
)
def test_every_start_that_is_given_up_is_told(serve: Callable[..., Service], status: int, reason: str) -> None:
    told: list[tuple[int, str]] = []
    started = compute(serve(status).url, lost=lambda lost, error: told.append((lost.rank, error)))
    started.invoke(invocation(run_seconds=0.5))
    started.join(Deadline.after(20.0, SYSTEM_CLOCK))
    assert [rank for rank, _ in told] == [2]
    assert reason in told[0][1]


def test_a_worker_is_taken_to_have_begun_where_the_store_cannot_tell(serve: Callable[..., Service]) -> None:
    def unknown(_: Invocation) -> bool:
        raise StoreError("no answer")

    service = serve(503)
    limits = ComputeCapabilities(max_seconds=30.0, reports_exit=True)
    started = GcpCompute(service.url, IdentityTokens(service.url, "", AnonymousCredentials), limits, unknown)
    started.invoke(invocation())
    assert [end.error for end in ended(started)] == ["HTTP 503: "]
    assert len(service.bodies) == 1


def test_a_worker_refuses_an_order_that_is_none(serve: Callable[..., Service]) -> None:
    service, told = serve(by_worker(400, b"not an invocation")), list[str]()
    started = compute(service.url, lost=lambda _, error: told.append(error))
    started.invoke(invocation())
    assert [end.error for end in ended(started)] == ["HTTP 400: not an invocation"]
    assert (len(service.bodies), told) == (1, ["HTTP 400: not an invocation"])


@pytest.mark.parametrize(("status", "told", "error"), [(200, False, None), (500, True, "HTTP 500: ")])
def test_the_end_of_rank_0_is_that_of_all(
    serve: Callable[..., Service], status: int, told: bool, error: str | None
) -> None:
    started = compute(serve(status, told=told).url)
    started.invoke(invocation(rank=0))
    assert list(ended(started)) == [Exit(0, error), Exit(1, None), Exit(2, None)]


def test_a_rank_0_that_was_killed_says_nothing_of_the_others(serve: Callable[..., Service]) -> None:
    started = compute(serve(503).url)
    started.invoke(invocation(rank=0))
    assert [end.rank for end in ended(started)] == [0]


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (Reply(401, b"Unauthorized token"), CredentialsError, "Unauthorized token.*application-default login"),
        (Reply(403, b"may not run.routes.invoke"), AccessDeniedError, r"run.routes.invoke; .* roles/run\.invoker$"),
        (Reply(403, b"vpcServiceControlsUniqueIdentifier: a"), AccessDeniedError, "Identifier: a; who administers"),
        (Reply(404, b"Access is forbidden by ingress"), DeploymentMissingError, "by ingress; run: fsd deploy gcp"),
    ],
)
def test_a_refusal_is_raised_to_who_looks_for_the_exit_with_what_the_service_said(
    serve: Callable[..., Service], reply: Reply, kind: type[FsdError], said: str
) -> None:
    started = compute(serve(reply).url)
    started.invoke(invocation())
    with pytest.raises(kind, match=said) as caught:
        ended(started)
    assert caught.value.rank == 2


def test_a_service_that_cannot_be_reached_is_told_at_once() -> None:
    service = Service([200])
    service.close()
    with pytest.raises(NoWayError, match="nothing listens at"):
        compute(service.url).invoke(invocation())


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        socket.gaierror(-3, "Temporary failure in name resolution"),
        OSError("Tunnel connection failed: 503 Service Unavailable"),
    ],
)
def test_the_first_try_is_repeated_as_any_other(
    serve: Callable[..., Service], error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, plain, tries = serve(200), socket.create_connection, list[object]()

    def flaky(*arguments: object, **options: object) -> socket.socket:
        tries.append(arguments)
        if len(tries) == 1:
            raise error
        return plain(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "create_connection", flaky)
    started = compute(service.url)
    started.invoke(invocation())
    assert list(ended(started)) == [Exit(2, None)]
    assert (len(tries), len(service.bodies)) == (2, 1)


@pytest.mark.parametrize(
    "error",
    [
        OSError("Tunnel connection failed: 407 Proxy Authentication Required"),
        OSError("[SSL: CERTIFICATE_VERIFY_FAILED]"),
    ],
)
def test_a_way_that_will_never_be_there_is_told_at_once(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", never)
    with pytest.raises(NoWayError, match="HTTPS_PROXY and REQUESTS_CA_BUNDLE"):
        compute("http://127.0.0.1:1/run").invoke(invocation())


def test_a_function_that_is_silent_is_waited_for_a_little_longer_than_the_run(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsd_gcp.compute._AFTER_SECONDS", 0.5)
    started = compute(serve(SILENCE).url)
    started.invoke(invocation(run_seconds=1.0))
    begin = SYSTEM_CLOCK.now()
    ended(started)
    assert SYSTEM_CLOCK.now() - begin < 10.0
    assert [end.rank for end in started.exits(RUN)] == [2]


def test_a_silent_store_is_waited_for_no_longer_than_the_run(serve: Callable[..., Service]) -> None:
    """It is asked whether a worker has begun whose start seems to have failed."""
    silent, service = serve(SILENCE), serve(503)
    settings = GcpSettings(name="demo", region="europe-west4", storage_endpoint=silent.url)
    made = Deployment.of(settings, project="some-project", workers=3)
    deployment = msgspec.structs.replace(made, functions_endpoint=service.url)
    with closing(GcpBackend(deployment=deployment)) as backend:
        begin = SYSTEM_CLOCK.now()
        backend.compute.invoke(invocation(run_seconds=3.0, deadline_seconds=1.5))
        backend.join(20.0)
        assert SYSTEM_CLOCK.now() - begin < 10.0
        assert [end.error for end in backend.compute.exits(RUN)] == ["HTTP 503: "]
    assert silent.asked
