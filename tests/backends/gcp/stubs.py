"""A service that answers what a test tells it to, over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeAlias

from fsd_gcp.calls.asking import OWN

_PATIENCE = 60.0


class Reply(NamedTuple):
    """An answer, as a service gives it."""

    status: int = 200
    content: bytes = b""
    headers: Mapping[str, str] = {}


class Asked(NamedTuple):
    """A request."""

    path: str
    body: bytes
    headers: Mapping[str, str]


# In place of an answer: the connection is closed, or nothing ever comes.
CUT, SILENCE = Reply(0), Reply(-1)
Answers: TypeAlias = Callable[[Asked], Reply]


def by_worker(status: int = 200, content: bytes = b"", **headers: str) -> Reply:
    """An answer as workers mark theirs."""
    return Reply(status, content, {OWN: "1", **headers})


def as_json(status: int, content: Any, **headers: str) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


class Stub:
    """`answers` may be set anew at any time; `asked` are the requests so far, `connections` how many came."""

    def __init__(self, answers: Answers) -> None:
        self.answers, self.asked = answers, list[Asked]()
        self.connections = 0
        self._lock, self._closed = threading.Lock(), threading.Event()
        outer = self

        class Handler(_Handler):
            stub = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def answer(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            reply = self.answers(asked)
        if reply is SILENCE:
            self._closed.wait(_PATIENCE)
        return reply

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    stub: Stub
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.stub.connections += 1
        super().setup()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply = self.stub.answer(Asked(self.path, body, dict(self.headers)))
        if reply.status <= 0:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.content)

    do_GET = do_POST = do_CONNECT = _answer  # noqa: N815 - names of the standard library

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving(answers: Answers) -> Iterator[Stub]:
    """A stub for the block."""
    made = Stub(answers)
    try:
        yield made
    finally:
        made.close()
