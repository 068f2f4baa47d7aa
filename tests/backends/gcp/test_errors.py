"""What is said where a token is refused: to log in anew only where that mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import requests
from google.auth import impersonated_credentials
from google.auth.exceptions import OAuthError, RefreshError
from google.auth.transport.requests import Request
from google.oauth2 import credentials
from google.oauth2.credentials import Credentials as Person

from fsd_gcp.calls.errors import OddTokenError, translated, translation
from fsdcore.errors import AccessDeniedError, ComputeError, ConfigError, CredentialsError, FsdError

LOGIN = "run: gcloud auth application-default login"
DISABLED = {
    "code": 403,
    "message": "IAM Service Account Credentials API has not been used in project 7 before or it is disabled.",
    "details": [{"reason": "SERVICE_DISABLED", "metadata": {"service": "iamcredentials.googleapis.com"}}],
}


class _Answer(BaseHTTPRequestHandler):
    """What all requests are answered with."""

    status = 200
    body = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Answer]]:
    """The service that gives tokens, Google's for persons and for borrowed identities alike."""
    handler = type("Handler", (_Answer,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", url)
        monkeypatch.setattr("google.auth.iam._IAM_ENDPOINT", url + "/{}:generateAccessToken")
        monkeypatch.setattr("google.auth.iam._IAM_IDTOKEN_ENDPOINT", url + "/{}:generateIdToken")
        monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda seconds: None)
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


def refused(made: object) -> FsdError:
    """What a refresh of credentials comes to."""
    with pytest.raises(FsdError) as caught, translated("starting", ComputeError):
        made.refresh(Request())  # type: ignore[attr-defined]
    text = str(caught.value)
    assert "\n" not in text
    assert (LOGIN in text) is isinstance(caught.value, CredentialsError)
    return caught.value


def borrowed() -> impersonated_credentials.IDTokenCredentials:
    source = Person("token-of-a-person")
    account = impersonated_credentials.Credentials(source, "robot@p.iam.gserviceaccount.com", ["scope"])
    return impersonated_credentials.IDTokenCredentials(account, "https://function", include_email=True)


def impersonated() -> impersonated_credentials.Credentials:
    return impersonated_credentials.Credentials(
        Person("token-of-a-person"), "robot@p.iam.gserviceaccount.com", ["scope"]
    )


REFUSALS: list[tuple[int, object, type[FsdError]]] = [
    (429, {"code": 429, "message": "too many"}, ComputeError),
    (500, {"code": 500, "message": "internal"}, ComputeError),
    (503, {"code": 503, "message": "busy"}, ComputeError),
    (404, {"code": 404, "message": "Gaia id not found for email robot@p"}, ComputeError),
    (403, {"code": 403, "message": "Permission iam.serviceAccounts.getOpenIdToken denied"}, AccessDeniedError),
    (403, {"code": 403, "message": "Request is prohibited by organization's policy"}, AccessDeniedError),
    (403, DISABLED, ConfigError),
]


@pytest.mark.parametrize(("status", "fault", "kind"), REFUSALS)
@pytest.mark.parametrize("make", [borrowed, impersonated])
def test_an_identity_that_is_not_lent_is_no_matter_of_the_login(
    service: type[_Answer], make: object, status: int, fault: object, kind: type[FsdError]
) -> None:
    service.status, service.body = status, json.dumps({"error": fault}).encode()
    assert callable(make)
    assert type(refused(make())) is kind


def test_an_api_that_is_not_enabled_is_named(service: type[_Answer]) -> None:
    service.status, service.body = 403, json.dumps({"error": DISABLED}).encode()
    assert "run: gcloud services enable iamcredentials.googleapis.com" in str(refused(borrowed()))


@pytest.mark.parametrize("make", [borrowed, impersonated])
@pytest.mark.parametrize("body", [b"", b"<html><h1>502 Bad Gateway</h1></html>"])
def test_what_is_between_is_no_matter_of_the_login(service: type[_Answer], make: object, body: bytes) -> None:
    service.status, service.body = 502, body
    assert callable(make)
    assert type(refused(make())) is ComputeError


def person() -> Person:
    uri = str(credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT)
    return Person(None, refresh_token="r", token_uri=uri, client_id="i", client_secret="s")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            400,
            b'{"error": "invalid_grant", "error_description": "Token has been expired or revoked."}',
            CredentialsError,
        ),
        (401, b'{"error": "invalid_client", "error_description": "Unauthorized"}', CredentialsError),
        (429, b"slowly", ComputeError),
        (500, b"", ComputeError),
        (502, b"<HTML>bad gateway</HTML>", ComputeError),
        (503, b'{"error": "server_error"}', ComputeError),
        (403, b'{"error": {"code": 403, "message": "denied"}}', AccessDeniedError),
    ],
)
def test_a_login_that_is_refused(service: type[_Answer], status: int, body: bytes, kind: type[FsdError]) -> None:
    service.status, service.body = status, body
    assert type(refused(person())) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RefreshError("Failed to retrieve http://m/token from the metadata service. Status: 503 Response:\nb"), False),
        (RefreshError("Failed to retrieve http://m/token from the metadata service. Status: 404 Response:\nb"), False),
        (RefreshError("no", retryable=True), False),
        (OddTokenError("no"), False),
        (OAuthError("Error code invalid_grant: expired"), True),
    ],
)
def test_what_else_a_refusal_may_be(error: Exception, kind: bool) -> None:
    assert isinstance(translation(error, "starting", ComputeError), CredentialsError) is kind


def test_a_service_that_answers_no_json(service: type[_Answer]) -> None:
    service.body = b"<html>log in to the network</html>"
    said = r"answered what is no JSON: '<html>log in to the network</html>'"
    with pytest.raises(ComputeError, match=said), translated("asking", ComputeError):
        requests.post(str(person().token_uri), timeout=10.0).json()


def test_who_is_not_trusted_is_told_with_the_variable() -> None:
    error = requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    assert "REQUESTS_CA_BUNDLE may name" in str(translation(error, "asking"))
