"""HTTP servers on this machine: what the proxy of Cloud Storage and the one for functions share."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fsd_emulators.processes import HOST
from fsd_emulators.visitors import refusal


class WebServer(ThreadingHTTPServer):
    """A thread for each connection, all ended with the process. Port 0 takes any that is free."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__((HOST, port), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    def open(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def end(self) -> None:
        """Answer no more. May be called twice, and before `open`."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Lets what is no fault of ours pass: a client that has gone, or was cut off."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Reads whole bodies, writes whole answers; calls `answer` for each request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def answer(self) -> None:
        """Answer the request by one call of `write`, or `cut_off`."""
        raise NotImplementedError

    def _answer(self) -> None:
        refused = refusal(self.headers.get_all("Host", []), self.headers.get_all("Origin", []))
        if refused is None:
            self.answer()
        else:
            # What it may have sent is not read.
            self.close_connection = True
            self.write(403, refused.encode())

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = _answer  # noqa: N815 - names of the standard library

    def body(self) -> bytes:
        """The whole body of the request; `ConnectionAbortedError` if the client has gone before its end."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self._line().partition(b";")[0], 16):
            parts.append(self._read(size))
            self._line()
        self._line()
        return b"".join(parts)

    def _read(self, size: int) -> bytes:
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionAbortedError
        return data

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line.endswith(b"\n"):
            raise ConnectionAbortedError
        return line

    def write(
        self, code: int, content: bytes, headers: Iterable[tuple[str, str]] = (), size: int | None = None
    ) -> None:
        """Send an answer, or (`size`) only so many bytes of its content; the whole length is added to `headers`."""
        self.send_response_only(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:size])
        self.wfile.flush()

    def cut_off(self) -> None:
        """Reset the connection."""
        # Without lingering, closing resets the connection instead of ending it in order.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """The log of calls says it all."""
