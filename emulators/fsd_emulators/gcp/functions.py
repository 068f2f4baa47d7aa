"""Cloud Functions (2nd generation) on this machine: what `FunctionServiceClient` speaks to over REST, and what runs.

The uploaded source zip runs as it is under ``functions-framework``, one process for each instance and one request at
a time in it. A function answers at ``{url}/run/{project}/{region}/{function}`` to requests with an identity token. One
that says whose it is must be of somebody with the role to invoke; of the others any will do but the word ``refused``. A
request goes on when its caller has gone. Its timeout and the memory of an instance are enforced by ending the instance.
Packages are not installed, and the Python is this one, whatever runtime is asked.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from aiohttp.web import BaseRequest, Response, StreamResponse
from multidict import CIMultiDict

from fsd_emulators.gcp.calls import Call, CallLog, ended_with
from fsd_emulators.gcp.control import ControlPlane
from fsd_emulators.gcp.identities import email_of
from fsd_emulators.gcp.instances import QUEUE_SECONDS, Answer, Instance, NoInstanceError, Pool
from fsd_emulators.gcp.management import Management
from fsd_emulators.gcp.service import Service
from fsd_emulators.web import OWN_HEADERS, WebServer, cut_off, kept_headers, whole_body
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import ServerError
from fsdcore.faults import Crash, Disconnect, Duplicate, Fault, Faults, Refuse

_MOST_BYTES = 32 << 20
_REFUSALS = {
    "INTERNAL": Answer(500, [], b"The request was aborted because there was no available instance."),
    "UNAVAILABLE": Answer(503, [], b"Service Unavailable"),
    "RESOURCE_EXHAUSTED": Answer(429, [], b"Rate exceeded."),
}


class FunctionsServer(Service):
    """The server; as a context manager it starts and stops. Sources and logs of instances are kept in `folder`.

    `log` has the kinds ``invoke`` (each request to a function, ended ``OK`` or with its status), ``start`` (each cold
    start), and the verbs of the control plane (``create``, ``update``, ``delete``, ``get``, ``list``, ``upload``).

    Its faults are those of ``invoke``, and what that is about is the body of the request. `Refuse` answers
    ``UNAVAILABLE`` (503), ``RESOURCE_EXHAUSTED`` (429) or ``INTERNAL`` (500) and asks no instance. `Disconnect` asks
    one, but the caller hears nothing for `seconds`, and then the connection is reset. `Duplicate` asks two, as when
    the service repeats; the second's answer is dropped. `Crash` kills the instance that is asked, with 0 seconds
    before it sees the request.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(Refuse, Disconnect, Duplicate, Crash)
        self._server = _Server(port, self.log, self.faults)
        self._server.control = ControlPlane(folder, self._server.url, self.log)

    @property
    def url(self) -> str:
        """Where it listens: the API endpoint of clients."""
        return self._server.url

    @property
    def management(self) -> Management:
        """What else the projects have: service accounts, policies, services, quotas."""
        return self._server.control.management

    @property
    def callers(self) -> list[str]:
        """Who sent each request to a function, as far as the token told."""
        return self._server.callers

    @property
    def queue_seconds(self) -> float:
        """How long a request may wait for an instance, where all are busy and there may be no more."""
        return self._server.control.queue_seconds

    @queue_seconds.setter
    def queue_seconds(self, seconds: float) -> None:
        self._server.control.queue_seconds = seconds

    def kill_instances(self, busy: bool = True) -> int:
        """End all instances, or only idle ones, as the service may at any time; returns how many.

        Requests in killed ones end with 503; the next request is a cold start.
        """
        return sum(pool.kill(busy) for pool in self._server.control.pools())

    def busy(self) -> int:
        """How many instances work on a request."""
        return sum(pool.busy() for pool in self._server.control.pools())

    def reset(self) -> None:
        """Delete all functions, forget all calls and faults; requests wait as long as they do at first."""
        self.faults.set()
        self.queue_seconds = QUEUE_SECONDS
        self._server.control.close()
        self._server.callers.clear()
        self.log.clear()

    def start(self) -> Self:
        self._server.open()
        return self

    def stop(self) -> None:
        """End all instances and answer no more. May be called twice."""
        self._server.end()
        self._server.control.close()


class _Server(WebServer):
    control: ControlPlane

    def __init__(self, port: int, log: CallLog, faults: Faults) -> None:
        super().__init__(port)
        self._log, self._faults = log, faults
        self.callers: list[str] = []

    async def answer(self, request: BaseRequest) -> StreamResponse:
        body = await whole_body(request)
        if not request.path.startswith("/run/"):
            return _sent(self.control.answer(request.method, request.raw_path, body, _token(request)))
        fault = self._faults.meet(Fault, "invoke", body.decode(errors="replace"))
        run = asyncio.get_running_loop().run_in_executor
        if isinstance(fault, Disconnect | Duplicate):
            run(None, self._run, request, body)
        if isinstance(fault, Disconnect):
            await asyncio.sleep(fault.seconds)
            return cut_off(request)
        return _sent(await run(None, self._run, request, body, fault))

    def _run(self, request: BaseRequest, body: bytes, fault: Fault | None = None) -> Answer:
        """The answer of a function, or of the service in its place."""
        project, region, function, *rest = [*request.raw_path.removeprefix("/run/").split("/", 3), "", ""][:4]
        name = f"projects/{project}/locations/{region}/functions/{function.partition('?')[0]}"
        if isinstance(fault, Refuse):
            answer = _REFUSALS[fault.error or "UNAVAILABLE"]
        else:
            answer = self._checked(self.control.pool(name), request, "/" + "".join(rest), body, fault)
        self._log.add(Call("invoke", name, 1, len(body), ended_with(answer.status)))
        return answer

    def _checked(self, pool: Pool | None, request: BaseRequest, path: str, body: bytes, fault: Fault | None) -> Answer:
        token = _token(request)
        if pool is None:
            return Answer(404, [], b"Page not found")
        if not token:
            return Answer(401, [], b"The request was not authenticated.")
        self.callers.append(email_of(token))
        if token == "refused" or not self.control.management.may_invoke(pool.revision.function, token):
            return Answer(403, [], b"The caller does not have permission run.routes.invoke.")
        if len(body) > _MOST_BYTES:
            return Answer(413, [], b"Request Entity Too Large")
        return self._asked(pool, request, path, body, fault)

    def _asked(self, pool: Pool, request: BaseRequest, path: str, body: bytes, fault: Fault | None) -> Answer:
        headers = kept_headers(request.headers, OWN_HEADERS)
        # The time to start an instance is the request's.
        deadline = Deadline.after(pool.revision.timeout, SYSTEM_CLOCK)
        try:
            with pool.instance(self.control.queue_seconds) as instance, _crashing(instance, fault):
                return instance.ask(request.method, path, headers, body, deadline)
        except NoInstanceError:
            return Answer(429, [], b"The request was aborted because there was no available instance.")
        except ServerError as error:
            return Answer(500, [], str(error).encode())


def _token(request: BaseRequest) -> str:
    """What the caller shows; empty if nothing."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if kind.lower() == "bearer" else ""


def _sent(answer: Answer) -> Response:
    headers = kept_headers(CIMultiDict(answer.headers), OWN_HEADERS)
    return Response(status=answer.status, headers=headers, body=answer.content)


@contextmanager
def _crashing(instance: Instance, fault: Fault | None) -> Iterator[None]:
    """Have the instance killed while it answers, if that is the fault of this request."""
    if not isinstance(fault, Crash):
        yield
        return
    if fault.seconds == 0:
        instance.kill()
    timer = threading.Timer(fault.seconds, instance.kill)
    timer.start()
    try:
        yield
    finally:
        # Whoever has the instance next is not meant.
        timer.cancel()
