"""Clients of the SDK: where they go, and what is said where they cannot."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import botocore.exceptions as sdk
import pytest

from fsd_aws.clients import Clients
from fsd_aws.errors import translate, translated
from fsd_emulators.processes import free_port
from fsdcore.errors import ConfigError, StoreError


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


class _Service(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_services_of_this_machine_are_asked_past_a_proxy(
    service: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", service)
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    clients = Clients("eu-west-1")
    clients.client("sqs").list_queues()
    clients.close()


def test_others_are_asked_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://service.example")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    clients = Clients("eu-west-1")
    with pytest.raises(sdk.ProxyConnectionError):
        clients.client("sqs").list_queues()
    clients.close()


def test_where_nobody_listens_that_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(seconds: float) -> None:
        raise AssertionError(f"a pause of {seconds} s")

    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setattr("botocore.endpoint.time.sleep", never)
    clients = Clients("eu-west-1")
    with pytest.raises(StoreError) as caught, translated("reading", StoreError):
        clients.client("s3").get_object(Bucket="b", Key="k")
    assert str(caught.value) == f"reading: nothing listens at {endpoint}; is `fsd emulate aws` running?"
    clients.close()


def test_a_service_of_this_machine_that_goes_is_named() -> None:
    error = sdk.ConnectionClosedError(endpoint_url="http://127.0.0.1:4566/b/k")
    said = str(translate(error, "reading", StoreError))
    assert said.startswith("reading: http://127.0.0.1:4566 does not answer as it should")
    assert "is `fsd emulate aws` still running?" in said


BAD = ["127.0.0.1:4566", "http://", "http://127.0.0.1:99999", "http://127.0.0.1: 80", "ftp://127.0.0.1", "x"]


@pytest.mark.parametrize("url", BAD)
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_that_is_none_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str
) -> None:
    monkeypatch.setenv(variable, url)
    with pytest.raises(ConfigError, match=rf"^{variable} must be such as http://127\.0\.0\.1:4566") as caught:
        Clients("eu-west-1").client("s3")
    assert url in str(caught.value)


@pytest.mark.parametrize("url", BAD)
def test_an_endpoint_of_the_configuration_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, url: str) -> None:
    (tmp_path / "config").write_text(f"[default]\nendpoint_url = {url}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(ConfigError, match=r"^endpoint_url in the AWS configuration must be"):
        Clients("eu-west-1").client("s3")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"])
def test_credentials_with_a_line_end_are_not_told(service: str, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", service)
    monkeypatch.setenv(variable, "SECRETWORD\r\n")
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    clients = Clients("eu-west-1")
    with pytest.raises(StoreError) as caught, translated("reading", StoreError):
        clients.client("sqs").list_queues()
    said = str(caught.value)
    assert "SECRETWORD" not in said
    assert "Signature=" not in said
    assert "line end" in said
    clients.close()


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-west-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("eusc-de-east-1", "aws-eusc"),
        ("us-iso-east-1", "aws-iso"),
        ("nowhere", "aws"),
    ],
)
def test_the_partition_follows_from_the_region(region: str, partition: str) -> None:
    assert Clients(region).partition == partition
