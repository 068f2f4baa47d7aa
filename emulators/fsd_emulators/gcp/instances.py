"""Instances of a function: one process each, one request at a time, watched for their memory and time."""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import os
import site
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fsd_emulators.gcp.identities import MetadataServer
from fsd_emulators.gcp.system import own_memory
from fsd_emulators.processes import HOST, ServerProcess
from fsdcore.clock import SYSTEM_CLOCK, Deadline

_LAUNCH = Path(__file__).with_name("launch.py")
QUEUE_SECONDS = 10.0
_WATCH_SECONDS = 0.1
_START_SECONDS = 120.0


class NoInstanceError(Exception):
    """All instances were busy for too long, and there may be no more of them."""


class Answer(NamedTuple):
    """What an instance, or the service in its place, answers."""

    status: int
    headers: list[tuple[str, str]]
    content: bytes


@dataclass(frozen=True)
class Revision:
    """What instances are made from. Memory is in bytes, times in seconds."""

    function: str
    number: int
    folder: Path
    entry_point: str
    environment: Mapping[str, str] = field(default_factory=dict)
    memory: int = 256 << 20
    timeout: float = 60.0
    most: int = 100

    def environ(self) -> dict[str, str]:
        """The whole environment of an instance."""
        service = self.function.rpartition("/")[2]
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "THREADS": "1",
            "K_SERVICE": service,
            "K_CONFIGURATION": service,
            "K_REVISION": f"{service}-{self.number:05d}",
            "FUNCTION_TARGET": self.entry_point,
            "FUNCTION_SIGNATURE_TYPE": "http",
            "LOG_EXECUTION_ID": "true",
            **self.environment,
        }


class Instance:
    """A process that runs the function. Nobody may end it while `start` is under way."""

    def __init__(self, revision: Revision, folder: Path, number: int) -> None:
        self.over_memory = self.ready = False
        self._port_file = folder / f"{number}.port"
        self._process = ServerProcess(
            f"instance of {revision.function}",
            [sys.executable, "-S", _LAUNCH, revision.folder, ":".join(site.getsitepackages()), self._port_file],
            ready=self._port_file.exists,
            log=folder / f"{number}.log",
            environ=revision.environ(),
            folder=revision.folder,
            start_seconds=_START_SECONDS,
            # An instance has nothing to put in order when it goes.
            stop_seconds=0.0,
        )

    def start(self) -> None:
        """Start it and wait until the function is loaded; `ServerError`, with its last words, if it does not."""
        self._process.start()
        self._port = int(self._port_file.read_text(encoding="ascii"))
        self.ready = True

    @property
    def alive(self) -> bool:
        return self._process.pid is not None

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes, deadline: Deadline) -> Answer:
        """Have the function answer; 504 if it has not by the deadline, 503 if it died. Either ends the instance."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=max(deadline.remaining(), 0.001))
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        except TimeoutError:
            self.kill()
            return Answer(504, [], b"upstream request timeout")
        except (ConnectionError, http.client.HTTPException):
            self.kill()
            reason = "Memory limit exceeded." if self.over_memory else "the connection to the instance had an error."
            return Answer(503, [], f"The request failed: {reason}".encode())
        finally:
            connection.close()

    def memory(self) -> int:
        """Bytes that its processes hold for themselves; what they share with others is not counted."""
        pid = self._process.pid
        return own_memory(pid) if pid is not None else 0

    def kill(self) -> None:
        """End it at once."""
        self._process.stop()


class Pool:
    """The instances of one revision: warm ones are used again, cold ones started, `revision.most` at the most.

    `on_start` is called for each cold start; `machine`, which goes with the last instance, tells them who they are.
    """

    def __init__(
        self, revision: Revision, folder: Path, on_start: Callable[[], None], machine: MetadataServer | None = None
    ) -> None:
        self._machine = machine
        if machine is not None:
            machine.open()
            environment = {**revision.environment, **machine.environment}
            revision = dataclasses.replace(revision, environment=environment)
        self.revision = revision
        self._folder, self._on_start = folder, on_start
        self._idle: list[Instance] = []
        self._all: set[Instance] = set()
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._watch_memory, name="memory", daemon=True)
        self._watch.start()

    @contextmanager
    def instance(self, queue_seconds: float = QUEUE_SECONDS) -> Iterator[Instance]:
        """An instance for one request, started if none is idle, waited for if there may be no more.

        `NoInstanceError` if there is none to be had, `ServerError` if it does not start.
        """
        instance = self._reserve(Deadline.after(queue_seconds, SYSTEM_CLOCK))
        try:
            if not instance.ready:
                self._on_start()
                instance.start()
                with self._changed:
                    self._changed.notify_all()
            yield instance
        finally:
            self._give_back(instance)

    def _reserve(self, deadline: Deadline) -> Instance:
        """An idle instance, or a new one that is yet to be started."""
        with self._changed:
            while not self._closed.is_set():
                while self._idle:
                    instance = self._idle.pop()
                    if instance.alive:
                        return instance
                    self._all.discard(instance)
                if len(self._all) < self.revision.most:
                    self._all.add(new := Instance(self.revision, self._folder, next(self._numbers)))
                    return new
                if deadline.passed():
                    break
                self._changed.wait(deadline.remaining())
        raise NoInstanceError

    def _give_back(self, instance: Instance) -> None:
        with self._changed:
            keep = instance.alive and not self._closed.is_set()
            if keep:
                self._idle.append(instance)
            else:
                self._all.discard(instance)
            self._changed.notify_all()
        if not keep:
            instance.kill()

    def busy(self) -> int:
        """How many instances work on a request."""
        with self._changed:
            return sum(one.ready and one.alive and one not in self._idle for one in self._all)

    def kill(self, busy: bool = True) -> int:
        """End all instances that run, or only idle ones, as the service may at any time; returns how many."""
        with self._changed:
            ended = [one for one in (self._all if busy else self._idle) if one.ready and one.alive]
        for instance in ended:
            instance.kill()
        return len(ended)

    def close(self, busy: bool = True) -> None:
        """Take no more requests; end all instances, busy ones (if not `busy`) when they have answered."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: not busy or all(one.ready for one in self._all))
        self.kill(busy)
        if busy:
            self._watch.join()

    def _watch_memory(self) -> None:
        while not self._closed.is_set() or any(one.alive for one in self._all.copy()):
            for instance in [one for one in self._all.copy() if one.ready and one.alive]:
                if instance.memory() > self.revision.memory:
                    instance.over_memory = True
                    instance.kill()
            SYSTEM_CLOCK.sleep(_WATCH_SECONDS)
        if self._machine is not None:
            self._machine.end()
