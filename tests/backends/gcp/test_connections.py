"""The connection of a start goes by the certificates and proxies of every other call, and notices silence."""

from __future__ import annotations

import base64
import datetime
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from backends.gcp.connections import connect, wait_up_to
from fsdcore.errors import ConfigError

NAME = "europe-west4-p.cloudfunctions.test"


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
    """Of `NAME`, signed by itself; with its key in the same file."""
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
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
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
    asked: list[tuple[str, str]] = []
    handler = type("Handler", (_Proxy,), {"beyond": server, "asked": asked})
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
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
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


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_certificates_that_cannot_be_read_are_one_line(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "bundle.pem").write_text(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "bundle.pem"))
    with pytest.raises(ConfigError, match=r"REQUESTS_CA_BUNDLE: the certificates in .*bundle\.pem cannot be read"):
        connect(URL, 1.0)


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
