"""How workers are started: by requests that are held, repeated where no worker began, and answered for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.auth.credentials import AnonymousCredentials

from backends.gcp.compute import TOLD, GcpCompute
from backends.gcp.identity import IdentityTokens
from fsdcore.capabilities import ComputeCapabilities
from fsdcore.clock import Deadline
from fsdcore.compute import Exit, Invocation
from fsdcore.errors import (
    AccessDeniedError,
    ComputeError,
    CredentialsError,
    DeploymentMissingError,
    FsdError,
    StoreError,
)


class Service:
    """A function that answers each request with the next of `statuses`, the last for ever; 0 for no answer."""

    def __init__(self, statuses: Sequence[int], told: bool = False) -> None:
        self.bodies: list[bytes] = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805 - the name that http.server looks for
                with lock:
                    status = statuses[min(len(self.bodies), len(statuses) - 1)]
                    self.bodies.append(handler.rfile.read(int(handler.headers["Content-Length"])))
                if status == 0:
                    handler.close_connection = True
                    return
                handler.send_response(status)
                if told:
                    handler.send_header(TOLD, "failure")
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(handler, *_: object) -> None:  # noqa: N805
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/run"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def start(*statuses: int, told: bool = False) -> Service:
        made.append(Service(statuses, told))
        return made[-1]

    yield start
    for service in made:
        service.close()


def invocation(run_seconds: float = 30.0, rank: int = 2) -> Invocation:
    return Invocation(
        run="0" * 16,
        rank=rank,
        workers=3,
        channel="queue",
        lane=0,
        plan="p",
        batches=(1,),
        branching=2,
        deadline_seconds=5.0,
        run_seconds=run_seconds,
    )


def compute(
    url: str,
    claimed: bool = False,
    lost: Callable[[Invocation, str], None] | None = None,
    goes_on: bool = True,
    settling: float = 0.0,
) -> GcpCompute:
    """`claimed`: whether the worker that is started has begun; `goes_on`: whether rank 0's mark is there."""
    limits = ComputeCapabilities(max_seconds=30.0, reports_exit=True)

    def begun(asked: Invocation) -> bool:
        return goes_on if asked.rank == 0 else claimed

    return GcpCompute(url, IdentityTokens(url, "", AnonymousCredentials), limits, begun, lost, settling)


def ended(started: GcpCompute) -> Sequence[Exit]:
    started.join(Deadline.after(20.0))
    return started.exits("0" * 16)


def test_a_start_sends_the_invocation_and_its_answer_is_the_exit(serve: Callable[..., Service]) -> None:
    service, sent = serve(200), invocation()
    started = compute(service.url)
    started.invoke(sent)
    assert list(ended(started)) == [Exit(2, None)]
    assert [Invocation.from_json(body) for body in service.bodies] == [sent]


class FirstTokenOnly(IdentityTokens):
    """Tokens that can no longer be had when a start is repeated."""

    def __init__(self) -> None:
        super().__init__("", "", AnonymousCredentials)
        self._asked = 0

    def token(self) -> str:
        self._asked += 1
        if self._asked > 1:
            raise CredentialsError("the credentials have expired")
        return super().token()


def test_a_start_that_may_not_be_repeated_is_refused_at_once(serve: Callable[..., Service]) -> None:
    lost: list[int] = []
    limits = ComputeCapabilities(max_seconds=30.0, reports_exit=True)
    started = GcpCompute(
        serve(429).url,
        FirstTokenOnly(),
        limits,
        claimed=lambda asked: asked.rank == 0,
        lost=lambda invocation, _: lost.append(invocation.rank),
    )
    started.invoke(invocation())
    with pytest.raises(CredentialsError, match="have expired"):
        ended(started)
    assert lost == [2]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
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
    assert told == []


def test_repeating_ends_with_the_run(serve: Callable[..., Service]) -> None:
    started = compute(serve(429).url)
    started.invoke(invocation(run_seconds=0.5))
    assert [end.error for end in ended(started)] == ["HTTP 429: "]


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
    started.join(Deadline.after(1.0))
    assert started.exits("0" * 16) == ()
    over.set()
    assert list(ended(started)) == [Exit(2, None)]
    assert (len(service.bodies), told) == (1, [])


def test_a_worker_without_permission_is_asked_for_again_while_roles_settle(serve: Callable[..., Service]) -> None:
    service = serve(403, 403, 200)
    started = compute(service.url, settling=20.0)
    started.invoke(invocation())
    assert list(ended(started)) == [Exit(2, None)]
    assert len(service.bodies) == 3


@pytest.mark.parametrize(
    ("status", "reason"), [(403, "roles/run.invoker"), (500, "HTTP 500"), (404, "no function"), (0, "connection broke")]
)
def test_every_start_that_is_given_up_is_told(serve: Callable[..., Service], status: int, reason: str) -> None:
    told: list[tuple[int, str]] = []
    started = compute(serve(status).url, lost=lambda lost, error: told.append((lost.rank, error)))
    started.invoke(invocation(run_seconds=0.5))
    started.join(Deadline.after(20.0))
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
    ("status", "kind"), [(401, CredentialsError), (403, AccessDeniedError), (404, DeploymentMissingError)]
)
def test_a_refusal_is_raised_to_who_looks_for_the_exit(
    serve: Callable[..., Service], status: int, kind: type[FsdError]
) -> None:
    started = compute(serve(status).url)
    started.invoke(invocation())
    with pytest.raises(kind) as caught:
        ended(started)
    assert caught.value.rank == 2


def test_a_service_that_cannot_be_reached_is_told_at_once() -> None:
    service = Service([200])
    service.close()
    with pytest.raises(ComputeError, match="nothing listens at"):
        compute(service.url).invoke(invocation())
