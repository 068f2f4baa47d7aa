"""What services answer that have no client library: what passes is repeated, what is no answer is one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import requests
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError, RefreshError

from fsd_gcp.calls import rest as module
from fsd_gcp.calls.errors import translated
from fsd_gcp.calls.rest import OddAnswerError, Rest
from fsd_gcp.deploy.access import Policy, holders
from fsd_gcp.deploy.project import APIS, disabled_apis, room
from fsd_gcp.deployment import Deployment
from fsd_gcp.settings import GcpSettings
from fsdcore.errors import AccessDeniedError, DeploymentError, FsdError

ENABLED = json.dumps({"services": [{"name": f"projects/p/services/{api}", "state": "ENABLED"} for api in APIS]})
HERE = Deployment.of(
    GcpSettings(name="demo", project="my-project", region="europe-west1"), project="my-project", workers=2
)


class Service(ThreadingHTTPServer):
    """A service that gives its `answers` in turn, status and body, and the last one for ever."""

    answers: list[tuple[int, bytes]]
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(self.path)
        status, body = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(status)
        cut = body.startswith(b"CUT")
        self.send_header("Content-Length", str(500 if cut else len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = cut

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(("127.0.0.1", 0), _Handler) as made:
        made.asked = []
        thread = Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def rest(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rest]:
    """With little patience."""
    monkeypatch.setattr(module, "_RETRY", module._RETRY.with_timeout(2.0).with_delay(initial=0.01, maximum=0.05))
    monkeypatch.setattr(module, "_OPEN_TOTAL", 1.0)
    anonymous: Any = AnonymousCredentials
    made = Rest(anonymous(), service.url)
    yield made
    made.close()


def refused(ask: Callable[[], object]) -> FsdError:
    with pytest.raises(FsdError) as caught, translated("asking"):
        ask()
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b'{"error": {"code": 503, "message": "busy"}}'])
def test_what_passes_is_repeated(service: Service, rest: Rest, status: int, body: bytes) -> None:
    service.answers = [(status, body), (status, body), (200, ENABLED.encode())]
    assert disabled_apis(rest, "my-project") == []
    assert len(service.asked) == 3


@pytest.mark.parametrize("answer", [(200, b"CUT"), (200, b'{"error": {"code": 503, "message": "busy"}}')])
def test_so_is_an_answer_that_breaks_off(service: Service, rest: Rest, answer: tuple[int, bytes]) -> None:
    service.answers = [answer, (200, b"{}")]
    assert rest.get("https://service.example/v1/x") == {}
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    ("answer", "said"), [((502, b"<html>"), "HTTP 502, '<html>'"), ((200, b"CUT"), "cannot be reached")]
)
def test_what_lasts_is_told_as_it_was(service: Service, rest: Rest, answer: tuple[int, bytes], said: str) -> None:
    service.answers = [answer]
    told = refused(lambda: rest.get("https://service.example/v1/x", names="n" * 500))
    assert said in str(told)
    assert "nnn" not in str(told)
    # Whoever can do without the answer must know the error, however long it was tried.
    with pytest.raises((exceptions.GoogleAPICallError, requests.RequestException)):
        rest.ask_openly("https://service.example/v1/x")


ODD = [
    b"",
    b"<html>log in</html>",
    b"[1, 2]",
    b"5",
    b"null",
    b'"x"',
    b'{"services":',
    b"\xff",
    b'{"error": {"code": 7}}',
]


@pytest.mark.parametrize("body", [*ODD, b'{"error": null}', b'{"error": "denied"}', b'{"error": []}'])
def test_success_that_is_no_answer(service: Service, rest: Rest, body: bytes) -> None:
    service.answers = [(200, body)]
    host = service.url.removeprefix("http://")
    for ask in (rest.get, rest.post, rest.ask_openly):
        told = refused(lambda ask=ask: ask("https://service.example/v1/x"))  # type: ignore[misc]
        assert type(told) is DeploymentError
        assert f"{host} answered " in str(told)
        assert "which is none of its answers" in str(told)
    assert len(service.asked) == 3


def test_what_is_told_is_only_the_beginning(service: Service, rest: Rest) -> None:
    service.answers = [(200, b"<html>\n\n" + b"x" * 5_000)]
    assert "answered '<html> xxx" in (text := str(refused(lambda: rest.get("https://service.example/v1/x"))))
    assert len(text) < 300


def test_where_nothing_is_to_be_told_nothing_is_needed(service: Service, rest: Rest) -> None:
    service.answers = [(200, b""), (204, b"")]
    rest.delete("https://service.example/v1/x")
    assert rest.post("https://service.example/v1/x") == {}


FIELDS: dict[Callable[[Rest], object], list[str]] = {
    lambda rest: disabled_apis(rest, "my-project"): [
        '{"services": null}',
        '{"services": {}}',
        '{"services": [{}]}',
        '{"services": ["x"]}',
        '{"services": [{"name": 5}]}',
        '{"services": [{"name": "x", "config": []}]}',
    ],
    lambda rest: room(rest, HERE): [
        '{"dimensionsInfos": null}',
        '{"dimensionsInfos": ["x"]}',
        '{"dimensionsInfos": [{"dimensions": null}]}',
        '{"dimensionsInfos": [{"applicableLocations": 5}]}',
        '{"dimensionsInfos": [{"details": {"value": 1.5}}]}',
        '{"dimensionsInfos": [{"details": {"value": "lots"}}]}',
    ],
    lambda rest: holders(Policy(rest, "https://service.example/v1/x").read(), "roles/x"): [
        '{"bindings": null}',
        '{"bindings": {}}',
        '{"bindings": ["x"]}',
        '{"bindings": [{"role": []}]}',
        '{"bindings": [{"role": "roles/x", "members": 5}]}',
        '{"bindings": [{"role": "roles/x", "members": "user:a"}]}',
    ],
}


@pytest.mark.parametrize(("ask", "body"), [(ask, body) for ask, bodies in FIELDS.items() for body in bodies])
def test_fields_of_other_types(service: Service, rest: Rest, ask: Callable[[Rest], object], body: str) -> None:
    service.answers = [(200, body.encode())]
    told = refused(lambda: ask(rest))
    assert type(told) is DeploymentError
    assert "which is none of its answers: " in str(told)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"5", b"[]", b'[{"error": {}}]', b'{"error": "denied"}', b'{"error": null}']
)
def test_refusals_with_odd_bodies(service: Service, rest: Rest, body: bytes) -> None:
    for status, kind in ((403, AccessDeniedError), (400, DeploymentError), (407, DeploymentError)):
        service.answers = [(status, body)]
        told = refused(lambda: rest.get("https://service.example/v1/x"))
        assert type(told) is kind
        assert f"HTTP {status}" in str(told)


def test_an_error_with_success_is_that_error(service: Service, rest: Rest) -> None:
    service.answers = [(200, b'{"error": {"code": 403, "message": "denied"}}')]
    assert isinstance(refused(lambda: rest.get("https://service.example/v1/x")), AccessDeniedError)


class Passing(Credentials):
    """The server of tokens cannot at first, or never."""

    def __init__(self, failures: int, retryable: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.failures, self.retryable, self.refreshes = failures, retryable, 0

    def refresh(self, request: object) -> None:
        self.refreshes += 1
        if self.refreshes <= self.failures:
            raise RefreshError("busy", retryable=self.retryable)
        self.token = "t"


@pytest.mark.usefixtures("rest")
def test_a_token_that_is_not_given_yet_is_asked_for_again(service: Service) -> None:
    service.answers = [(200, b"{}")]
    made = Rest(Passing(2), service.url)
    assert made.get("https://service.example/v1/x") == {}
    made.close()


@pytest.mark.usefixtures("rest")
def test_but_not_where_the_login_is_refused(service: Service) -> None:
    credentials = Passing(9, retryable=False)
    made = Rest(credentials, service.url)
    with pytest.raises(GoogleAuthError):
        made.get("https://service.example/v1/x")
    assert (credentials.refreshes, service.asked) == (1, [])
    made.close()


def test_an_odd_answer_is_an_error_of_calls() -> None:
    # What can be done without is passed over by this kind.
    assert issubclass(OddAnswerError, exceptions.GoogleAPICallError)


def test_nobody_becomes_trusted_by_waiting() -> None:
    assert not module._is_transient(requests.exceptions.SSLError("CERTIFICATE_VERIFY_FAILED"))
    assert module._is_transient(requests.ConnectionError("reset"))
