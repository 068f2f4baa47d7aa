"""How workers are started: by requests that are held, repeated where no worker began, and answered for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from backends.gcp.compute import TOLD, GcpCompute
from backends.gcp.identity import IdentityTokens
from fsdcore.capabilities import ComputeCapabilities
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.compute import Exit, Invocation
from fsdcore.errors import AccessDeniedError, ComputeError, CredentialsError, DeploymentMissingError, FsdError


class Service:
    """A function that answers each request with the next of `statuses`, the last for ever."""

    def __init__(self, statuses: Sequence[int], told: bool = False) -> None:
        self.bodies: list[bytes] = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805 - the name that http.server looks for
                with lock:
                    status = statuses[min(len(self.bodies), len(statuses) - 1)]
                    self.bodies.append(handler.rfile.read(int(handler.headers["Content-Length"])))
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


def invocation(run_seconds: float = 30.0) -> Invocation:
    return Invocation(
        run="r",
        rank=2,
        workers=3,
        channel="queue",
        lane=0,
        plan="p",
        batches=(1,),
        branching=2,
        deadline_seconds=5.0,
        run_seconds=run_seconds,
        started=SYSTEM_CLOCK.wall(),
    )


def compute(url: str, claimed: bool = False, lost: Callable[[Invocation, str], None] | None = None) -> GcpCompute:
    limits = ComputeCapabilities(max_seconds=30.0, reports_exit=True)
    return GcpCompute(url, IdentityTokens(url, "", emulated=True), limits, lambda _: claimed, lost)


def ended(started: GcpCompute) -> Sequence[Exit]:
    started.join(Deadline.after(20.0))
    return started.exits("r")


def test_a_start_sends_the_invocation_and_its_answer_is_the_exit(serve: Callable[..., Service]) -> None:
    service, sent = serve(200), invocation()
    started = compute(service.url)
    started.invoke(sent)
    assert list(ended(started)) == [Exit(2, None)]
    assert [Invocation.from_json(body) for body in service.bodies] == [sent]


@pytest.mark.parametrize("status", [429, 503])
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
    with pytest.raises(ComputeError, match="cannot be reached"):
        compute(service.url).invoke(invocation())
