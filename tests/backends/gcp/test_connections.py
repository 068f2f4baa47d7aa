"""The connection of a start goes by the certificates and proxies of every other call, and notices silence."""

from __future__ import annotations

import base64
import datetime
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import google.auth
import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import RefreshError
from google.cloud.functions_v2 import Function
from google.pubsub_v1.types import ListTopicsResponse

from fsd_gcp.calls.clients import Clients, Endpoints
from fsd_gcp.calls.connections import check_environment, connect, wait_up_to
from fsd_gcp.calls.errors import translated
from fsdcore.errors import ConfigError, CredentialsError

NAME = "europe-west4-p.cloudfunctions.test"
# What gRPC asks has Google's own names.
NAMES = (NAME, "pubsub.googleapis.com", "cloudfunctions.googleapis.com")


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A handshake that the client ends."""


class _Proxy(BaseHTTPRequestHandler):
    """A proxy for one connection, which leads every name to `beyond`."""

    beyond = 0
    asked: list[tuple[str, str]]

    def do_CONNECT(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization", "")))
        with socket.create_connection(("127.0.0.1", self.beyond)) as server:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pour, args=(server, self.connection))
            back.start()
            _pour(self.connection, server)
            back.join()

    def log_message(self, *_: object) -> None:
        return


def _pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `NAMES`, signed by itself; with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    path.write_bytes(encoded + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def server(certificate: Path) -> Iterator[int]:
    """The port of a server for `NAME`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    with _Server(("127.0.0.1", 0), _Answers) as made:
        made.socket = context.wrap_socket(made.socket, server_side=True)
        yield from _served(made)


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """What a proxy for all names was asked for; it is the one that the variables name."""
    yield from _proxied(server, monkeypatch)


def _proxied(beyond: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    asked: list[tuple[str, str]] = []
    handler = type("Handler", (_Proxy,), {"beyond": beyond, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:secret@127.0.0.1:{made.server_port}")
        for port in _served(made):
            assert port
            yield asked


def _served(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()


def posted(connection: http.client.HTTPConnection) -> int:
    with closing(connection):
        connection.request("POST", "/", b"{}")
        return connection.getresponse().status


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "GRPC_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        monkeypatch.delenv(name, raising=False)


URL = urlsplit(f"https://{NAME}/fsd-demo")


def test_it_trusts_the_certificates_that_requests_does(
    proxy: list[tuple[str, str]], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        posted(connect(URL, 10.0))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert posted(connect(URL, 10.0)) == 200
    assert len(proxy) == 2


def test_it_goes_through_the_proxy_that_is_named(
    proxy: list[tuple[str, str]], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert posted(connect(URL, 10.0)) == 200
    assert proxy == [(f"{NAME}:443", f"Basic {base64.b64encode(b'ann:secret').decode()}")]


def test_no_proxy_is_asked_for_what_is_named_as_near(
    proxy: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", ".cloudfunctions.test")
    # Nobody knows the name but the proxy.
    with pytest.raises(OSError, match=r"Name or service|getaddrinfo|name resolution|nodename"):
        posted(connect(URL, 10.0))
    assert proxy == []


def test_a_proxy_of_another_kind_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://ann:secret@proxy.example.com:1080")
    with pytest.raises(ConfigError, match=r"not socks5://proxy\.example\.com") as caught:
        connect(URL, 1.0)
    assert "secret" not in str(caught.value)


def test_services_of_this_machine_are_asked_past_all_proxies(proxy: list[tuple[str, str]]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as made:
        for port in _served(made):
            assert posted(connect(urlsplit(f"http://127.0.0.1:{port}/run"), 10.0)) == 200
    assert proxy == []


def test_plain_servers_elsewhere_are_asked_plainly() -> None:
    assert type(connect(urlsplit("http://functions.test:8086/run"), 1.0)) is http.client.HTTPConnection


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("kind", ["none", "no certificate", "empty", "folder"])
def test_certificates_that_cannot_be_read_are_one_line(
    kind: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle.pem"
    if kind == "folder":
        path.mkdir()
    elif kind != "none":
        path.write_text("" if kind == "empty" else kind)
    monkeypatch.setenv(variable, str(path))
    said = rf"^{variable}: the certificates in .*bundle\.pem cannot be read: "
    with pytest.raises(ConfigError, match=said):
        connect(URL, 1.0)
    with pytest.raises(ConfigError, match=said):
        _ = Clients(Endpoints(), "my-project").credentials


PROXIES = {
    "http://p:abc": "'http://p:abc'",
    "http://[::1": "'http://[::1'",
    "http://ann:secret@p:abc": "'p:abc'",
    "http://p:99999": "'http://p:99999'",
    "http://": "'http://'",
    "http://p q:1": "'http://p q:1'",
    ":3128": "':3128'",
}


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"])
@pytest.mark.parametrize("value", PROXIES)
def test_a_proxy_that_is_no_address_is_named_by_its_variable(
    value: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        _ = Clients(Endpoints(), "my-project").credentials
    assert str(caught.value) == f"{variable} must be such as http://proxy.example.com:3128, not {PROXIES[value]}"


def test_of_two_spellings_the_one_that_counts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    monkeypatch.setenv("https_proxy", "socks5://proxy.example.com:1080")
    with pytest.raises(ConfigError, match=r"^https_proxy must be such as"):
        connect(URL, 1.0)


@pytest.mark.parametrize("value", ["*", "[::1", "10.0.0.0/abc", "http://x, y z", "1.2.3.4/99", ",,", "\u00e9"])
def test_no_list_of_near_names_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.com:3128")
    monkeypatch.setenv("NO_PROXY", value)
    check_environment()
    connect(URL, 1.0).close()


def listed(request: bytes, context: grpc.ServicerContext) -> bytes:
    """An answer of Pub/Sub that lists a topic."""
    del request, context
    return bytes(ListTopicsResponse.serialize(ListTopicsResponse(topics=[{"name": "projects/my-project/topics/t"}])))


def found(request: bytes, context: grpc.ServicerContext) -> bytes:
    """An answer of Cloud Functions with an active function."""
    del request, context
    return bytes(Function.serialize(Function(name="f", state=Function.State.ACTIVE)))


@pytest.fixture
def services(certificate: Path) -> Iterator[int]:
    """The port of Pub/Sub and Cloud Functions, by gRPC over TLS."""
    server = grpc.server(ThreadPoolExecutor(2))
    for service, method, answer in (
        ("google.pubsub.v1.Publisher", "ListTopics", listed),
        ("google.cloud.functions.v2.FunctionService", "GetFunction", found),
    ):
        handler = {method: grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handler),))
    pem = certificate.read_bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)]))
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture
def grpc_proxy(services: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """As `proxy`, for what is asked by gRPC."""
    yield from _proxied(services, monkeypatch)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Clients of Google's own services, as nobody."""
    monkeypatch.setattr(google.auth, "default", lambda scopes: (AnonymousCredentials(), "my-project"))
    made = Clients(Endpoints(), "my-project")
    yield made
    made.close()


def topics(clients: Clients, seconds: float = 10.0) -> list[str]:
    listed = clients.publisher.list_topics(project="projects/my-project", retry=None, timeout=seconds)
    return [topic.name for topic in listed]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_grpc_trusts_and_goes_through_what_all_else_does(
    grpc_proxy: list[tuple[str, str]],
    clients: Clients,
    certificate: Path,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "1a2b3c4d.0").write_bytes(certificate.read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate if kind == "file" else tmp_path))
    assert topics(clients) == ["projects/my-project/topics/t"]
    assert clients.functions.get_function(name="f", retry=None, timeout=10.0).name == "f"
    assert clients.subscriber.transport.host == "pubsub.googleapis.com:443"
    login = f"Basic {base64.b64encode(b'ann:secret').decode()}"
    assert set(grpc_proxy) == {(f"{name}:443", login) for name in NAMES[1:]}


def test_grpc_trusts_nobody_else(grpc_proxy: list[tuple[str, str]], clients: Clients) -> None:
    with pytest.raises(GoogleAPICallError, match=r"(?i)certificate|handshake|deadline"):
        topics(clients, 3.0)
    assert grpc_proxy


@pytest.mark.usefixtures("grpc_proxy")
def test_grpc_keeps_a_variable_of_its_own(
    clients: Clients, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.pem").write_text(Path(certifi.where()).read_text())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(tmp_path / "other.pem"))
    with pytest.raises(GoogleAPICallError):
        topics(clients, 3.0)


def test_grpc_asks_no_proxy_for_what_is_named_as_near(
    grpc_proxy: list[tuple[str, str]], clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "googleapis.com")
    with pytest.raises(GoogleAPICallError):
        topics(clients, 1.0)
    assert grpc_proxy == []


def test_a_connection_that_goes_silent_is_noticed_within_a_minute() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = connect(urlsplit(f"http://127.0.0.1:{listener.getsockname()[1]}/run"), 5.0)
        connection.connect()
        with closing(connection):
            wait_up_to(connection, 300.0)
            assert connection.sock.gettimeout() == 300.0
            assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, between, times = (
                connection.sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            )
    assert idle + between * times <= 60


class Expired(Credentials):
    """Of somebody whose login has expired."""

    def refresh(self, request: object) -> None:
        raise RefreshError("invalid_grant: Token has been expired or revoked.")


@pytest.mark.usefixtures("grpc_proxy")
def test_a_login_that_has_expired_is_told_by_grpc_too(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    expired: Any = Expired
    monkeypatch.setattr(google.auth, "default", lambda scopes: (expired(), "my-project"))
    clients = Clients(Endpoints(), "my-project")
    with pytest.raises(CredentialsError, match=r"expired or revoked.*gcloud auth"), translated("asking"):
        topics(clients)
    clients.close()
