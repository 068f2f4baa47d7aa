"""Servers as processes of this machine: start, wait until they answer, stop them with their children."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeAlias

from fsd_emulators.server import Server
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import MissingExtraError, ServerError

Check: TypeAlias = Callable[[], bool]

HOST = "127.0.0.1"
_POLL_SECONDS = 0.02
_PROBE_SECONDS = 1.0
_TAIL_LINES = 15
# Servers here are asked directly, whatever proxies the environment names.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A port of `HOST` that nobody listens on now. Use it soon: it is not held."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def http_ready(url: str) -> Check:
    """A check that passes when `url` answers 200."""

    def check() -> bool:
        try:
            with DIRECT.open(url, timeout=_PROBE_SECONDS) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, http.client.HTTPException, OSError):
            return False

    return check


def tcp_ready(port: int, host: str = HOST) -> Check:
    """A check that passes when something accepts connections at the port."""

    def check() -> bool:
        try:
            with socket.create_connection((host, port), timeout=_PROBE_SECONDS):
                return True
        except OSError:
            return False

    return check


class ServerProcess(Server):
    """A server in a process group of its own, so that its children end with it.

    `name` is for people; `command` the program and its arguments; `environ` its whole environment (None: that of
    this process); `folder` where it runs. What it writes goes to the file `log`. `start` returns when `ready` passes;
    `stop` asks with SIGTERM, and after `stop_seconds` kills the group. As a context manager it does both.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        ready: Check,
        log: Path,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        start_seconds: float = 60.0,
        stop_seconds: float = 5.0,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._ready = ready
        self._environ = environ
        self._folder = folder
        self._start_seconds, self._stop_seconds = start_seconds, stop_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the server, which is that of its group too; None if it does not run."""
        # Another thread may stop it meanwhile.
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> Self:
        """Start the server and wait until it is ready.

        `MissingExtraError` if there is no such program; `ServerError` if it ends, or is not ready in
        `start_seconds`: the text ends with the last lines of its log, and nothing of it is left running.
        """
        self._process = self._spawned()
        deadline = Deadline.after(self._start_seconds, SYSTEM_CLOCK)
        try:
            while not self._ready():
                self._check(deadline)
                SYSTEM_CLOCK.sleep(_POLL_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server and all its children; content if there are none. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        self._signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self._stop_seconds)
        self._signal(process, signal.SIGKILL)
        process.wait()

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines that the server wrote; empty if none."""
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _spawned(self) -> subprocess.Popen[bytes]:
        try:
            with self.log.open("wb") as log:
                return subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environ,
                    cwd=self._folder,
                    start_new_session=True,
                )
        except FileNotFoundError as error:
            if error.filename != self._command[0]:
                raise
            raise MissingExtraError(f"{self.name}: the program {self._command[0]!r} is not installed") from error
        except PermissionError as error:
            raise ServerError(f"{self.name}: {error.filename} cannot be run: {error.strerror}") from error

    def _check(self, deadline: Deadline) -> None:
        """`ServerError` if waiting on is no use."""
        assert self._process is not None
        code = self._process.poll()
        if code is not None:
            raise ServerError(self._said(f"ended with code {code} before it was ready"))
        if deadline.passed():
            raise ServerError(self._said(f"was not ready in {self._start_seconds:g} s"))

    def _said(self, problem: str) -> str:
        tail = self.log_tail()
        return f"{self.name} {problem}" + (f"; its log {self.log} ends:\n{tail}" if tail else "; it wrote nothing")

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: int) -> None:
        # The group outlives its leader while a child of it runs.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
