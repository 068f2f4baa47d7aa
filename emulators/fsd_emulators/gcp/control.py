"""The control plane of functions: sources, functions, and the long-running operations that make and change them."""

from __future__ import annotations

import json
import re
import shutil
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fsd_emulators.gcp.calls import Call, CallLog
from fsd_emulators.gcp.errors import ApiError
from fsd_emulators.gcp.identities import MetadataServer, granted
from fsd_emulators.gcp.instances import QUEUE_SECONDS, Answer, Pool, Revision
from fsd_emulators.gcp.management import Management
from fsd_emulators.gcp.sources import BuildError, build
from fsdcore.errors import ServerError

_BUCKET = "uploads"
_NAME = re.compile(r"projects/[^/]+/locations/[^/]+/functions/[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|K|k|M|G)?")
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, None: 1}
_CODE = {"INVALID_ARGUMENT": 3}
_INTERNAL = 13
_LONGEST_TIMEOUT = 3600.0
_TYPE = "type.googleapis.com/google.cloud.functions.v2."


class ControlPlane:
    """Functions by name. `root` keeps sources and logs; functions answer below `url`.

    `queue_seconds` is how long a request may wait for an instance. `management` is what else a project has.
    """

    def __init__(self, root: Path, url: str, log: CallLog) -> None:
        self.queue_seconds = QUEUE_SECONDS
        self._root, self._url, self._log = root, url, log
        self._functions: dict[str, dict[str, Any]] = {}
        self._pools: dict[str, Pool] = {}
        self._operations: dict[str, dict[str, Any]] = {}
        self._uploads: dict[str, bytes] = {}
        self.management = Management(self._functions.__contains__)
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(4, "operations")

    def pool(self, name: str) -> Pool | None:
        """The instances of a function; None if there is none that can run."""
        return self._pools.get(name)

    def pools(self) -> list[Pool]:
        return list(self._pools.values())

    def close(self) -> None:
        """Delete everything; what is under way is waited for."""
        self._workers.shutdown()
        self._workers = ThreadPoolExecutor(4, "operations")
        for name in list(self._functions):
            self._remove(name)
        self._operations.clear()
        self.management.reset()
        self._uploads.clear()

    # Requests ------------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, body: bytes, token: str = "") -> Answer:
        """Answer a request to the API, or the upload of a source; `token` is what the caller shows."""
        url = urlsplit(target)
        query = parse_qs(url.query)
        try:
            if url.path.startswith("/upload/") and method == "PUT":
                self._upload(url.path.removeprefix("/upload/"), body)
                return Answer(200, [], b"")
            if url.path == "/token" and method == "POST":
                return _json(200, granted(parse_qs(body.decode())))
            content = json.loads(body) if body else {}
            self.management.check(url.path)
            managed = self.management.answer(method, url.path, query, content, token)
            if managed is not None:
                return _json(200, managed)
            first = {key: values[0] for key, values in query.items()}
            return _json(200, self._route(method, url.path.removeprefix("/v2/"), first, content))
        except ApiError as error:
            return _json(error.code, error.content)
        except ValueError as error:
            return _json(400, ApiError("INVALID_ARGUMENT", str(error)).content)

    def _route(self, method: str, path: str, query: dict[str, str], content: dict[str, Any]) -> dict[str, Any]:
        if "/operations/" in path and method == "GET":
            return self._operation(path)
        if path.endswith(":generateUploadUrl"):
            return self._generate_upload_url()
        if path.endswith("/functions"):
            parent = path.removesuffix("/functions")
            return self._list(parent) if method == "GET" else self._create(parent, query, content)
        answers = {"GET": self._get, "DELETE": self._delete}
        if method == "PATCH":
            return self._update(path, query.get("updateMask", ""), content)
        if method not in answers:
            raise ApiError("NOT_FOUND", f"{method} {path}: there is no such method here")
        return answers[method](path)

    def _generate_upload_url(self) -> dict[str, Any]:
        key = f"{uuid.uuid4()}.zip"
        self._uploads[key] = b""
        return {"uploadUrl": f"{self._url}/upload/{key}", "storageSource": {"bucket": _BUCKET, "object": key}}

    def _upload(self, key: str, body: bytes) -> None:
        if key not in self._uploads:
            raise ApiError("NOT_FOUND", "there is no such upload URL")
        self._uploads[key] = body
        self._log.add(Call("upload", key, 1, len(body)))

    def _operation(self, name: str) -> dict[str, Any]:
        if name not in self._operations:
            raise ApiError("NOT_FOUND", f"Resource '{name}' was not found")
        return self._operations[name]

    # Functions -----------------------------------------------------------------------------------------------

    def _found(self, name: str) -> dict[str, Any]:
        if name not in self._functions:
            raise ApiError("NOT_FOUND", f"Resource '{name}' was not found")
        return self._functions[name]

    def _get(self, name: str) -> dict[str, Any]:
        self._log.add(Call("get", name, 1))
        return self._found(name)

    def _list(self, parent: str) -> dict[str, Any]:
        """All functions of a region, or of all regions (``-``), on one page."""
        self._log.add(Call("list", parent, 1))
        below = f"{parent.removesuffix('-')}" if parent.endswith("/-") else f"{parent}/"
        return {"functions": [self._functions[name] for name in sorted(self._functions) if name.startswith(below)]}

    def _create(self, parent: str, query: dict[str, str], content: dict[str, Any]) -> dict[str, Any]:
        name = f"{parent}/functions/{query.get('functionId', '')}"
        if not _NAME.fullmatch(name):
            raise ApiError("INVALID_ARGUMENT", f"the function id {query.get('functionId', '')!r} is not valid")
        revision = self._revision(name, content, 1)
        with self._lock:
            if name in self._functions:
                raise ApiError("ALREADY_EXISTS", f"Could not create Cloud Run functions {name}: it exists already")
            self._functions[name] = _described(name, self._url, content, 1, "DEPLOYING")
        self._log.add(Call("create", name, 1))
        return self._begin("CREATE_FUNCTION", name, lambda: self._roll_out(name, revision, content))

    def _update(self, name: str, mask: str, content: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            found = self._found(name)
            if found["state"] == "DEPLOYING":
                raise ApiError("FAILED_PRECONDITION", f"{name}: an operation is under way")
            merged = _merged(found, mask, content)
            number = int(found["serviceConfig"]["revision"].rpartition("-")[2]) + 1
            revision = self._revision(name, merged, number)
            self._functions[name] = _described(name, self._url, merged, number, "DEPLOYING")
        self._log.add(Call("update", name, 1))
        return self._begin("UPDATE_FUNCTION", name, lambda: self._roll_out(name, revision, merged))

    def _delete(self, name: str) -> dict[str, Any]:
        self._found(name)
        self._log.add(Call("delete", name, 1))
        return self._begin("DELETE_FUNCTION", name, lambda: self._remove(name))

    def _remove(self, name: str) -> dict[str, Any]:
        pool = self._pools.pop(name, None)
        if pool is not None:
            pool.close()
        self._functions.pop(name, None)
        self.management.forget(name)
        return {"@type": "type.googleapis.com/google.protobuf.Empty"}

    def _revision(self, name: str, content: dict[str, Any], number: int) -> Revision:
        """What the description asks for; `ApiError` where it is not sound."""
        built, service = content.get("buildConfig", {}), content.get("serviceConfig", {})
        if not built.get("entryPoint") or not str(built.get("runtime", "")).startswith("python"):
            raise ApiError("INVALID_ARGUMENT", "buildConfig needs an entryPoint and a runtime of Python")
        if int(service.get("maxInstanceRequestConcurrency", 1)) != 1:
            raise ApiError("INVALID_ARGUMENT", "maxInstanceRequestConcurrency must be 1 here")
        timeout = float(service.get("timeoutSeconds") or 60)
        if not 0 < timeout <= _LONGEST_TIMEOUT:
            raise ApiError("INVALID_ARGUMENT", f"timeoutSeconds must be from 1 to {_LONGEST_TIMEOUT:.0f}")
        _check_shape(service)
        accounts = (str(service.get("serviceAccountEmail", "")), str(built.get("serviceAccount", "")))
        self.management.check_acting(*(account.rpartition("/")[2] for account in accounts if account))
        return Revision(
            name,
            number,
            self._root / name.replace("/", "-") / f"{number}-{uuid.uuid4().hex[:8]}",
            str(built["entryPoint"]),
            dict(service.get("environmentVariables", {})),
            memory_bytes(str(service.get("availableMemory") or "256M")),
            timeout,
            int(service.get("maxInstanceCount") or 100),
        )

    def _roll_out(self, name: str, revision: Revision, content: dict[str, Any]) -> dict[str, Any]:
        """Build the source, start a first instance, and send requests to the new revision from then on."""
        source = content.get("buildConfig", {}).get("source", {}).get("storageSource", {})
        logs = revision.folder.with_name(f"{revision.folder.name}-logs")
        logs.mkdir(parents=True)
        try:
            refused = self.management.may_build(name.split("/")[1], content["buildConfig"].get("serviceAccount", ""))
            if refused:
                raise BuildError(f"Build failed: {refused}")
            build(self._uploads.get(source.get("object", ""), b""), revision.folder)
            self.management.keep_image(name)
            pool = Pool(revision, logs, lambda: self._log.add(Call("start", name, 1)), self._machine(name, content))
            self._check(pool)
        except (BuildError, ServerError) as error:
            self._functions[name] = _described(name, self._url, content, revision.number, "FAILED")
            shutil.rmtree(revision.folder, ignore_errors=True)
            raise ApiError("INVALID_ARGUMENT", str(error)) from error
        before, self._pools[name] = self._pools.get(name), pool
        if before is not None:
            before.close(busy=False)
        self._functions[name] = _described(name, self._url, content, revision.number, "ACTIVE")
        return {"@type": f"{_TYPE}Function", **self._functions[name]}

    @staticmethod
    def _machine(name: str, content: dict[str, Any]) -> MetadataServer | None:
        """What tells instances who they are; None if no account was named."""
        account = content.get("serviceConfig", {}).get("serviceAccountEmail")
        return MetadataServer(name.split("/")[1], account) if account else None

    @staticmethod
    def _check(pool: Pool) -> None:
        """Start one instance: what the service does before it sends requests."""
        try:
            with pool.instance():
                return
        except ServerError:
            pool.close()
            raise

    # Operations ----------------------------------------------------------------------------------------------

    def _begin(self, kind: str, target: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        name = f"{target.partition('/functions/')[0]}/operations/operation-{uuid.uuid4()}"
        metadata = {"@type": f"{_TYPE}OperationMetadata", "target": target, "operationType": kind}
        begun = {"name": name, "metadata": metadata, "done": False}
        self._operations[name] = begun

        def run() -> None:
            # What an operation ends with whose work was not foreseen to fail so: a client must not wait for ever.
            end: dict[str, Any] = {"error": {"code": _INTERNAL, "message": "Internal error"}}
            try:
                end = {"response": work()}
            except ApiError as error:
                end = {"error": {"code": _CODE[error.status], "message": error.message}}
            finally:
                self._operations[name] = {**begun, "done": True, **end}

        self._workers.submit(run)
        return begun


# By the processors that a function has at least: the least and the most memory that it may have, in MiB.
_SHAPES = ((8.0, 4_096, 32_768), (6.0, 4_096, 24_576), (4.0, 2_048, 16_384), (2.0, 0, 8_192), (1.0, 0, 4_096))
_SMALL_SHAPES = ((0.5, 0, 1_024), (0.0, 0, 512))


def _check_shape(service: dict[str, Any]) -> None:
    """`ApiError` for a pair of processors and memory that Cloud Run does not take."""
    if not service.get("availableCpu"):
        return
    cpu, memory = float(service["availableCpu"]), memory_bytes(str(service.get("availableMemory") or "256M")) >> 20
    least, most = next((low, high) for above, low, high in (*_SHAPES, *_SMALL_SHAPES) if cpu >= above)
    if not least <= memory <= most:
        raise ApiError("INVALID_ARGUMENT", f"{memory}Mi of memory do not go with {cpu:g} CPU: from {least} to {most}Mi")


def memory_bytes(text: str) -> int:
    """Bytes of what ``availableMemory`` says: ``512Mi``, ``1Gi``, ``256M``."""
    found = _MEMORY.fullmatch(text)
    if found is None:
        raise ApiError("INVALID_ARGUMENT", f"availableMemory {text!r} is no amount of memory")
    return int(float(found[1]) * _UNITS[found[2]])


def _described(name: str, url: str, content: dict[str, Any], number: int, state: str) -> dict[str, Any]:
    """A function as the API shows it."""
    _, project, _, region, _, function = name.split("/")
    uri = f"{url}/run/{project}/{region}/{function}"
    service = {
        "availableMemory": "256M",
        "timeoutSeconds": 60,
        **content.get("serviceConfig", {}),
        "uri": uri,
        "service": f"projects/{project}/locations/{region}/services/{function}",
        "revision": f"{function}-{number:05d}",
    }
    return {**content, "name": name, "state": state, "environment": "GEN_2", "url": uri, "serviceConfig": service}


def _merged(found: dict[str, Any], mask: str, content: dict[str, Any]) -> dict[str, Any]:
    """`found` with the fields of `content` that `mask` names, or all that it has if the mask is empty."""
    merged = json.loads(json.dumps(found))
    for path in [part for part in mask.split(",") if part] or list(content):
        *parents, last = path.split(".")
        into, source = merged, content
        for parent in parents:
            into, source = into.setdefault(parent, {}), source.get(parent, {})
        if last in source:
            into[last] = source[last]
        else:
            into.pop(last, None)
    return dict(merged)


def _json(status: int, content: dict[str, Any]) -> Answer:
    return Answer(status, [("Content-Type", "application/json; charset=utf-8")], json.dumps(content).encode())
