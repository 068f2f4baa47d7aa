"""A file of credentials that cannot be used is one line: which file, what is wrong with it, what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from google.auth.transport.requests import Request

from fsd_gcp.calls.clients import Clients, Endpoints
from fsd_gcp.calls.errors import translated
from fsdcore.errors import CredentialsError, DeploymentError

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
LOGIN = "run: gcloud auth application-default login"
URL = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com:generateAccessToken"
POOL = "//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/p/providers/q"
WORKFORCE = "//iam.googleapis.com/locations/global/workforcePools/p/providers/q"
PERSON = {"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}


def pem(key: Any, password: bytes = b"") -> str:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return str(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden).decode())


KEY = rsa.generate_private_key(65537, 2048)
ACCOUNT = {
    "type": "service_account",
    "client_email": "a@p.iam.gserviceaccount.com",
    "token_uri": "https://oauth2.googleapis.com/token",
    "private_key": pem(KEY),
    "project_id": "my-project",
}
FEDERATED = {
    "type": "external_account",
    "audience": POOL,
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
}
AWS = {**FEDERATED, "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request"}
IMPERSONATED = {
    "type": "impersonated_service_account",
    "service_account_impersonation_url": URL,
    "source_credentials": PERSON,
}
LOGGED_IN = {
    "type": "external_account_authorized_user",
    "audience": WORKFORCE,
    "client_id": "i",
    "client_secret": "s",
    "refresh_token": "r",
    "token_url": "https://sts.googleapis.com/v1/oauthtoken",
}


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without credentials."""
    for name in (VARIABLE, "GOOGLE_CLOUD_PROJECT", "GCE_METADATA_HOST", "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"CLOUDSDK_CONFIG": str(tmp_path / "gcloud"), "NO_GCE_CHECK": "true", "PATH": "/bin"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "gcloud").mkdir()


def found() -> Any:
    return Clients(Endpoints(), "my-project").credentials


def refused() -> str:
    with pytest.raises(CredentialsError) as caught:
        found()
    text = str(caught.value)
    assert text.isprintable()
    return text


def source(**fields: object) -> dict[str, object]:
    return {**FEDERATED, "credential_source": fields}


def without(content: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != field}


DAMAGED: dict[str, tuple[object, str]] = {
    "empty": (b"", "it is empty"),
    "blank": (b" \n", "it is empty"),
    "cut": (b'{"type": "auth', "Input data was truncated"),
    "words": (b"GOOGLE", "JSON is malformed"),
    "binary": (b"\xff\xfe{\x00", "JSON is malformed"),
    "no text": (b'{"type": "\xff"}', "can't decode byte"),
    "nested": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested too deep"),
    "large": (b"x" * (2 << 20), "larger than any such file"),
    "list": ([], "got `array`"),
    "string": ("x", "got `str`"),
    "null": (None, "got `null`"),
    "number": (5, "got `int`"),
    "no type": ({}, "it has no type; known are authorized_user, service_account"),
    "a number's type": ({"type": 5}, "its type is 5; known are"),
    "a list's type": ({"type": ["authorized_user"]}, "its type is ['authorized_user']; known are"),
    "unknown type": ({"type": "robot\n"}, "its type is 'robot\\n'; known are"),
    "distributed": ({"type": "gdch_service_account"}, "it is for Google Distributed Cloud"),
    "client": ({"installed": {"client_id": "x"}}, "it is an OAuth client"),
    "web client": ({"web": {"client_id": "x"}}, "it is an OAuth client"),
    "person without token": (without(PERSON, "refresh_token"), "missing required field `refresh_token`"),
    "person with null": ({**PERSON, "refresh_token": None}, "got `null` - at `$.refresh_token`"),
    "person with nothing": ({**PERSON, "client_id": ""}, "length >= 1 - at `$.client_id`"),
    "person's number": ({**PERSON, "quota_project_id": 7}, "got `int` - at `$.quota_project_id`"),
    "person's expiry": ({**PERSON, "expiry": "soon"}, "Failed to load authorized user credentials"),
    "account without key": (without(ACCOUNT, "private_key"), "missing required field `private_key`"),
    "account's number": ({**ACCOUNT, "private_key": 5}, "got `int` - at `$.private_key`"),
    "account's project": ({**ACCOUNT, "project_id": []}, "got `array` - at `$.project_id`"),
    "account's address": ({**ACCOUNT, "token_uri": "oauth2"}, "matching regex"),
    "no key": ({**ACCOUNT, "private_key": "nonsense"}, "its private_key is not the RSA key"),
    "cut key": ({**ACCOUNT, "private_key": pem(KEY)[:400]}, "its private_key is not the RSA key"),
    "other key": ({**ACCOUNT, "private_key": pem(ec.generate_private_key(ec.SECP256R1()))}, "is not the RSA key"),
    "locked key": ({**ACCOUNT, "private_key": pem(KEY, b"word")}, "its private_key is not the RSA key"),
    "federated empty": ({"type": "external_account"}, "missing required field `audience`"),
    "no source": (FEDERATED, "missing required field `credential_source`"),
    "null source": ({**FEDERATED, "credential_source": None}, "got `null` - at `$.credential_source`"),
    "text source": ({**FEDERATED, "credential_source": "x"}, "got `str` - at `$.credential_source`"),
    "list source": ({**FEDERATED, "credential_source": []}, "got `array` - at `$.credential_source`"),
    "empty source": (source(), "its credential_source must have one of file, url"),
    "two sources": (source(file="/x", url="http://x"), "its credential_source must have one of file, url"),
    "aws source of others": (source(environment_id="aws1", url="http://x"), "must have one of file, url"),
    "lost token": (source(file="/none"), "its token file /none: no such file or directory"),
    "token folder": (source(file="/"), "its token file /: is a directory"),
    "token number": (source(file=5), "got `int` - at `$.credential_source.file`"),
    "no url": (source(url="x"), "matching regex"),
    "no headers": (source(url="http://x", headers=["a"]), "got `array` - at `$.credential_source.headers`"),
    "no format": (source(url="http://x", format=None), "got `null` - at `$.credential_source.format`"),
    "odd format": (source(url="http://x", format={"type": "xml"}), "Invalid enum value 'xml'"),
    "json without field": (source(url="http://x", format={"type": "json"}), "lacks subject_token_field_name"),
    "command not allowed": (source(executable={"command": "/bin/sh"}), "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1"),
    "no command": (source(executable={}), "missing required field `command`"),
    "text command": (source(executable="/bin/sh"), "got `str` - at `$.credential_source.executable`"),
    "soon": (source(executable={"command": "x", "timeout_millis": 1}), "`int` >= 5000"),
    "no certificate": (source(certificate={}), "either certificate_config_location or"),
    "lost certificate": (source(certificate={"certificate_config_location": "/none"}), "its file /none: no such file"),
    "aws": ({**AWS, "credential_source": {"environment_id": "aws2"}}, "must have environment_id aws1"),
    "bad impersonation": ({**source(url="http://x"), "service_account_impersonation_url": "x"}, "matching regex"),
    "workforce of workload": ({**source(url="http://x"), "workforce_pool_user_project": "p"}, "no pool of a workforce"),
    "impersonated empty": ({"type": "impersonated_service_account"}, "missing required field"),
    "impersonated by nobody": ({**IMPERSONATED, "source_credentials": {}}, "in its source_credentials, it has no type"),
    "impersonated by null": ({**IMPERSONATED, "source_credentials": None}, "got `null` - at `$.source_credentials`"),
    "impersonated by odd": ({**IMPERSONATED, "source_credentials": {"type": "zz"}}, "its type is 'zz'"),
    "impersonated by bad": (
        {**IMPERSONATED, "source_credentials": {**ACCOUNT, "private_key": "x"}},
        "in its source_credentials, its private_key is not the RSA key",
    ),
    "impersonates nobody": ({**IMPERSONATED, "service_account_impersonation_url": "x"}, "matching regex"),
    "delegates": ({**IMPERSONATED, "delegates": "x"}, "got `str` - at `$.delegates`"),
    "workforce": (without(LOGGED_IN, "token_url"), "missing required field `token_url`"),
    "universe": ({**LOGGED_IN, "universe_domain": 5}, "got `int` - at `$.universe_domain`"),
}


def written(path: Path, content: object) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, said = DAMAGED[damage]
    named = written(tmp_path / "key.json", content)
    monkeypatch.setenv(VARIABLE, str(named))
    text = refused()
    assert f"no Google Cloud credentials in {named}, which {VARIABLE} names: " in text
    assert said in text
    assert text.endswith(f"; mend it, name another, or unset {VARIABLE}")
    monkeypatch.delenv(VARIABLE)
    own = written(tmp_path / "gcloud" / "application_default_credentials.json", content)
    text = refused()
    assert f"no Google Cloud credentials in {own}: " in text
    assert said in text
    assert text.endswith(f"; {LOGIN}")


@pytest.mark.parametrize(("path", "said"), [("/none.json", "no such file"), ("/", "is a directory"), ("/dev/zero", "")])
def test_what_is_no_file(path: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, path)
    assert f"in {path}, which {VARIABLE} names: {said}" in refused()


@pytest.mark.skipif(os.geteuid() == 0, reason="whoever is root may read all")
def test_a_file_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "key.json", PERSON).chmod(0)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "key.json"))
    assert "names: permission denied; mend it" in refused()


def test_the_variable_counts_before_the_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = written(tmp_path / "gcloud" / "application_default_credentials.json", [])
    monkeypatch.setenv(VARIABLE, str(written(tmp_path / "key.json", PERSON)))
    assert found().refresh_token == "r"
    # With gcloud's own file named, to log in anew mends it.
    monkeypatch.setenv(VARIABLE, str(own))
    assert refused().endswith(f"; {LOGIN}")


def test_without_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"there are no Google Cloud credentials; {LOGIN} (CLOUDSDK_CONFIG says that gcloud's files are in {tmp_path}"
    assert said in refused()
    monkeypatch.delenv("CLOUDSDK_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert refused().endswith(f"there are no Google Cloud credentials; {LOGIN}")


@pytest.mark.parametrize(
    ("content", "format", "said"),
    [
        (b"", {}, "it is empty"),
        (b"\xff", {}, "it is no UTF-8"),
        (b"[]", {"type": "json", "subject_token_field_name": "t"}, "got `array`"),
        (b"{", {"type": "json", "subject_token_field_name": "t"}, "truncated"),
        (b'{"t": 5}', {"type": "json", "subject_token_field_name": "t"}, "it has no t"),
        (b'{"u": "x"}', {"type": "json", "subject_token_field_name": "t"}, "it has no t"),
    ],
)
def test_a_damaged_file_of_a_token(
    content: bytes, format: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = written(tmp_path / "token", content)
    monkeypatch.setenv(VARIABLE, str(written(tmp_path / "key.json", source(file=str(token), format=format))))
    assert f"its token file {token}: {said}" in refused() or said in refused()


@pytest.mark.parametrize(
    ("command", "said"), [("/none --x", "there is no command '/none'"), ("'x", "is none"), (" ", "is none")]
)
def test_a_command_that_cannot_be_run(command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1")
    monkeypatch.setenv(VARIABLE, str(written(tmp_path / "key.json", source(executable={"command": command}))))
    assert said in refused()


SOUND: dict[str, dict[str, Any]] = {
    "person": {**PERSON, "account": "", "universe_domain": "googleapis.com", "unknown": [1]},
    "account": {**ACCOUNT, "private_key_id": "k", "client_id": "7", "auth_uri": "https://x", "universe_domain": "x.y"},
    "url": source(url="http://169.254.169.254/t", headers={"Metadata": "True"}, format={"type": "text"}),
    "aws": {
        **AWS,
        "credential_source": {
            "environment_id": "aws1",
            "region_url": "http://169.254.169.254/r",
            "url": "http://169.254.169.254/c",
            "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity",
        },
    },
    "impersonated": {**IMPERSONATED, "delegates": []},
    "impersonated by account": {**IMPERSONATED, "source_credentials": ACCOUNT},
    "impersonated by workforce": {**IMPERSONATED, "source_credentials": LOGGED_IN},
    "workforce": LOGGED_IN,
    "federated account": {
        **source(url="http://169.254.169.254/t"),
        "service_account_impersonation_url": URL,
        "service_account_impersonation": {"token_lifetime_seconds": 3600},
    },
}


@pytest.mark.parametrize("kind", SOUND)
def test_sound_files_are_taken(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    monkeypatch.setenv(VARIABLE, str(written(tmp_path / "key.json", SOUND[kind])))
    assert found().quota_project_id == ("my-project" if kind in ("person", "workforce") else None)


def test_a_pipe_is_left_to_whom_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    monkeypatch.setenv(VARIABLE, str(pipe))
    writer = Thread(target=written, args=(pipe, PERSON))
    writer.start()
    assert found().refresh_token == "r"
    writer.join()


@pytest.mark.parametrize("own", [None, "p-of-file"])
def test_calls_of_a_workforce_are_counted_for_a_project(
    own: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = {**source(url="http://127.0.0.1/t"), "audience": WORKFORCE, "quota_project_id": own}
    monkeypatch.setenv(VARIABLE, str(written(tmp_path / "key.json", person)))
    assert found().quota_project_id == (own or "my-project")
    # As an account, they are counted for the account's.
    monkeypatch.setenv(
        VARIABLE, str(written(tmp_path / "key.json", {**person, "service_account_impersonation_url": URL}))
    )
    assert found().quota_project_id == own


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server that answers what is put into `body`, where tokens of persons and of elsewhere are given."""

    class Handler(BaseHTTPRequestHandler):
        body = b""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.url = f"http://127.0.0.1:{server.server_port}/"  # type: ignore[attr-defined]
        monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", Handler.url)  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Handler
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"5", b'"x"', b"{}", b'{"expires_in": []}'])
@pytest.mark.parametrize("kind", ["person", "federated"])
def test_odd_answers_where_tokens_are_given(
    tokens: Any, body: bytes, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.body = body
    federated = {**source(url=tokens.url), "audience": WORKFORCE, "token_url": tokens.url}
    monkeypatch.setenv(VARIABLE, str(written(tmp_path / "key.json", PERSON if kind == "person" else federated)))
    with pytest.raises((DeploymentError, CredentialsError)) as caught, translated("asking"):
        found().refresh(Request())
    assert LOGIN not in str(caught.value)
    assert str(caught.value).isprintable()
