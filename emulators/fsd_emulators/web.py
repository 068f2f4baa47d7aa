"""HTTP of the emulators: servers for programs of this machine alone, and what those behind them are asked."""

from __future__ import annotations

import asyncio
import io
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import aiohttp
from aiohttp.web import BaseRequest, Response, Server, ServerRunner, SockSite, StreamResponse
from multidict import CIMultiDict
from yarl import URL

from fsd_emulators.loops import LoopThread
from fsd_emulators.processes import HOST
from fsd_emulators.visitors import refusal

Answerer: TypeAlias = Callable[[BaseRequest], Awaitable[StreamResponse]]

_BACKLOG = 1_024
_CLOSE_SECONDS = 0.1
_ACCEPTING_TURNS = 4
# Of one connection, and not of what is sent over it.
HOP_HEADERS = frozenset(
    {"connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
# Those that a server adds by itself to an answer that it has whole.
OWN_HEADERS = HOP_HEADERS | {"content-length", "date", "server"}
_NOT_ADDED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


def listener(port: int) -> socket.socket:
    """A socket that listens at a port of this machine; port 0 takes any that is free."""
    return socket.create_server((HOST, port), backlog=_BACKLOG)


async def serve(answer: Answerer, at: socket.socket, *, ends_with_caller: bool = False) -> ServerRunner:
    """Have `answer` answer what programs of this machine ask `at` a socket, until `cleanup` of what is returned.

    With `ends_with_caller` an answer is cancelled when its caller has gone.
    """

    async def guarded(request: BaseRequest) -> StreamResponse:
        refused = refusal(request.headers.getall("Host", []), request.headers.getall("Origin", []))
        return Response(status=403, text=refused) if refused is not None else await answer(request)

    server = Server(guarded, access_log=None, handler_cancellation=ends_with_caller, auto_decompress=False)
    runner = ServerRunner(server, shutdown_timeout=_CLOSE_SECONDS)
    await runner.setup()
    await SockSite(runner, at).start()
    return runner


async def close(runner: ServerRunner) -> None:
    """End a server with all its connections, those too that were being accepted."""
    server = runner.server
    await runner.cleanup()
    # Accepting takes the loop this many turns.
    for _ in range(_ACCEPTING_TURNS):
        await asyncio.sleep(0)
    if server is not None:
        await server.shutdown(_CLOSE_SECONDS)


async def whole_body(request: BaseRequest) -> bytes:
    """The body, however long it is."""
    return b"".join([part async for part in request.content.iter_any()])


def cut_off(request: BaseRequest) -> StreamResponse:
    """Reset the connection; what is returned reaches nobody."""
    if request.transport is not None:
        # Without lingering, closing resets the connection instead of ending it in order.
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return Response(status=500)


async def cut_short(request: BaseRequest, answer: Response) -> StreamResponse:
    """Send half of the body of `answer`, then reset the connection."""
    content = answer.body if isinstance(answer.body, bytes) else b""
    half = StreamResponse(status=answer.status, headers=answer.headers)
    half.content_length = len(content)
    await half.prepare(request)
    await half.write(content[: len(content) // 2])
    return cut_off(request)


def kept_headers(headers: Mapping[str, str], dropped: Collection[str]) -> CIMultiDict[str]:
    """All but those `dropped`, which are in small letters."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def client(keep_seconds: float = 15.0) -> aiohttp.ClientSession:
    """For what is forwarded: as many connections as wanted, idle ones kept for so long, and no deadline."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=keep_seconds)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False)


def forward(
    session: aiohttp.ClientSession, url: str, request: BaseRequest, body: Any, **headers: str
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    """Ask the server at `url` the same, with another `body` and with some `headers` replaced."""
    sent = kept_headers(request.headers, HOP_HEADERS | ({"content-length"} if isinstance(body, bytes) else set()))
    sent.update(headers)
    return session.request(
        request.method,
        URL(url + request.raw_path, encoded=True),
        headers=sent,
        # Large bytes as they are would have aiohttp warn that they hold up the loop.
        data=io.BytesIO(body) if body and isinstance(body, bytes) else body or None,
        skip_auto_headers=_NOT_ADDED,
        allow_redirects=False,
    )


class WebServer:
    """A server with a thread of its own; a subclass answers. It holds its port from the beginning."""

    def __init__(self, port: int = 0) -> None:
        self._listener = listener(port)
        self.port = int(self._listener.getsockname()[1])
        self._thread = LoopThread("web")
        self._runner: ServerRunner

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def open(self) -> None:
        """Begin to answer."""
        self._thread.start()
        self._thread.run(self.begin())

    def end(self) -> None:
        """Answer no more. May be called twice, and before `open`."""
        if self._thread.runs:
            self._thread.run(self.finish())
        self._thread.stop()
        self._listener.close()

    async def begin(self) -> None:
        """What `open` does on the loop."""
        self._runner = await serve(self.answer, self._listener)

    async def finish(self) -> None:
        """What `end` does on the loop."""
        await close(self._runner)

    async def answer(self, request: BaseRequest) -> StreamResponse:
        """The answer to a request."""
        raise NotImplementedError
