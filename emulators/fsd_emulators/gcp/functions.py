"""Cloud Functions (2nd generation) on this machine: what `FunctionServiceClient` speaks to over REST, and what runs.

The uploaded source zip runs as it is under ``functions-framework``, one process for each instance and one request at
a time in it. A function answers at ``{url}/run/{project}/{region}/{function}`` to requests with an identity token. One
that says whose it is must be of somebody with the role to invoke; of the others any will do but the word ``refused``. A
request goes on when its caller has gone. Its timeout and the memory of an instance are enforced by ending the instance.
Packages are not installed, and the Python is this one, whatever runtime is asked.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fsd_emulators.gcp.calls import Call, CallLog
from fsd_emulators.gcp.control import ControlPlane
from fsd_emulators.gcp.identities import email_of
from fsd_emulators.gcp.instances import QUEUE_SECONDS, Answer, Instance, NoInstanceError, Pool
from fsd_emulators.gcp.lots import Lots
from fsd_emulators.gcp.management import Management
from fsd_emulators.gcp.service import Service
from fsd_emulators.gcp.web import Handler, WebServer
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import ServerError

_MOST_BYTES = 32 << 20
_SHARES = ("unavailable", "throttled", "aborted", "cut_off", "silent", "twice")
_REFUSALS = {
    "aborted": Answer(500, [], b"The request was aborted because there was no available instance."),
    "unavailable": Answer(503, [], b"Service Unavailable"),
    "throttled": Answer(429, [], b"Rate exceeded."),
}
_HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})


@dataclass(frozen=True)
class FunctionsFaults:
    """What goes wrong with requests to functions, as shares from 0 to 1 drawn from `seed`; a retry is drawn anew.

    - `unavailable`, `throttled`, `aborted`: are answered 503, 429 or 500 and reach no instance
    - `cut_off`: reach an instance, which answers them, but the connection of the caller is reset at once
    - `silent`: reach an instance, and no answer ever comes: the connection breaks after `silent_seconds`
    - `twice`: reach two instances, as when the service repeats; the second's answer is dropped
    - `kill`: an instance that gets a request whose body has this text is killed `kill_after` seconds later (if any),
      with 0 before it sees the request; the first `kill_times` requests alone, each with 0
    """

    seed: int = 0
    unavailable: float = 0.0
    throttled: float = 0.0
    aborted: float = 0.0
    cut_off: float = 0.0
    silent: float = 0.0
    silent_seconds: float = 1.0
    twice: float = 0.0
    kill: bytes = b""
    kill_after: float = 0.0
    kill_times: int = 0


class FunctionsServer(Service[FunctionsFaults]):
    """The server; as a context manager it starts and stops. Sources and logs of instances are kept in `folder`.

    `log` has the kinds ``invoke`` (each request to a function, ended ``OK`` or with its status), ``start`` (each cold
    start), and the verbs of the control plane (``create``, ``update``, ``delete``, ``get``, ``list``, ``upload``).
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__()
        self._answers = self._server = _Server(port, self.log)
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
        self.faults = FunctionsFaults()
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

    def __init__(self, port: int, log: CallLog) -> None:
        super().__init__(port, _Handler)
        self.log = log
        self.callers: list[str] = []
        self.set_faults(FunctionsFaults())

    def set_faults(self, faults: FunctionsFaults) -> None:
        self.faults, self._lots = faults, Lots(faults.seed)
        self._kills = itertools.count(1)

    @property
    def struck(self) -> int:
        return self._lots.struck

    def kills(self, body: bytes) -> bool:
        """Whether the instance that a request reaches is to be killed."""
        faults = self.faults
        if not faults.kill or faults.kill not in body:
            return False
        killed = not faults.kill_times or next(self._kills) <= faults.kill_times
        if killed:
            self._lots.strike()
        return killed

    def draw(self) -> str:
        """The fault that a request to a function has: the name of the field, or nothing."""
        return self._lots.draw(self.faults, _SHARES)


class _Handler(Handler):
    server: _Server

    def answer(self) -> None:
        body = self.body()
        if not self.path.startswith("/run/"):
            return self._write(self.server.control.answer(self.command, self.path, body, self._token()))
        fault = self.server.draw()
        if fault in ("cut_off", "silent", "twice"):
            threading.Thread(target=self._run, args=(body,), daemon=True).start()
        if fault == "silent":
            SYSTEM_CLOCK.sleep(self.server.faults.silent_seconds)
        if fault in ("cut_off", "silent"):
            return self.cut_off()
        return self._write(self._run(body, _REFUSALS.get(fault)))

    def _write(self, answer: Answer) -> None:
        self.write(answer.status, answer.content, answer.headers)

    def _run(self, body: bytes, refusal: Answer | None = None) -> Answer:
        """The answer of a function, or of the service in its place."""
        project, region, function, *rest = [*self.path.removeprefix("/run/").split("/", 3), "", ""][:4]
        name = f"projects/{project}/locations/{region}/functions/{function.partition('?')[0]}"
        answer = refusal or self._checked(self.server.control.pool(name), "/" + "".join(rest), body)
        ended = "OK" if answer.status < 400 else str(answer.status)
        self.server.log.add(Call("invoke", name, 1, len(body), ended))
        return answer

    def _checked(self, pool: Pool | None, path: str, body: bytes) -> Answer:
        token = self._token()
        if pool is None:
            return Answer(404, [], b"Page not found")
        if not token:
            return Answer(401, [], b"The request was not authenticated.")
        self.server.callers.append(email_of(token))
        if token == "refused" or not self.server.control.management.may_invoke(pool.revision.function, token):
            return Answer(403, [], b"The caller does not have permission run.routes.invoke.")
        if len(body) > _MOST_BYTES:
            return Answer(413, [], b"Request Entity Too Large")
        return self._asked(pool, path, body)

    def _token(self) -> str:
        """What the caller shows; empty if nothing."""
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if kind.lower() == "bearer" else ""

    def _asked(self, pool: Pool, path: str, body: bytes) -> Answer:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_HEADERS}
        # The time to start an instance is the request's.
        deadline = Deadline.after(pool.revision.timeout, SYSTEM_CLOCK)
        try:
            with pool.instance(self.server.control.queue_seconds) as instance, self._killing(instance, body):
                answer = instance.ask(self.command, path, headers, body, deadline)
        except NoInstanceError:
            return Answer(429, [], b"The request was aborted because there was no available instance.")
        except ServerError as error:
            return Answer(500, [], str(error).encode())
        kept = [(name, value) for name, value in answer.headers if name.lower() not in _HOP_HEADERS]
        return Answer(answer.status, kept, answer.content)

    @contextmanager
    def _killing(self, instance: Instance, body: bytes) -> Iterator[None]:
        """Have the instance killed while it answers, if that is the fault of this request."""
        if not self.server.kills(body):
            yield
            return
        seconds = self.server.faults.kill_after
        if seconds == 0:
            instance.kill()
        timer = threading.Timer(seconds, instance.kill)
        timer.start()
        try:
            yield
        finally:
            # Whoever has the instance next is not meant.
            timer.cancel()
