"""An execution environment: one process that runs a function's code, and the Runtime API it talks to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import aiohttp.web
import psutil

from fsd_emulators.aws import runtime
from fsd_emulators.aws.functions import Function
from fsd_emulators.processes import HOST
from fsd_emulators.visitors import refusal

RESPONSE_BYTES = 6_291_556
# What Lambda gives a function to initialize before it counts as part of its timeout.
_INIT_SECONDS = 10.0
_WATCH_SECONDS = 0.05
# The process is gone by then: nobody waits for an answer.
_CLOSE_SECONDS = 0.01
_MEGABYTE = 1 << 20

Ending = Literal["success", "error", "timeout", "memory", "exit"]


@dataclass
class Outcome:
    """How a call ended: `payload` is the handler's answer, or an error object if `ending` is another than success."""

    ending: Ending
    payload: bytes
    cold: bool = False
    init_ms: float = 0.0
    duration_ms: float = 0.0
    most_memory_mb: int = 0
    log: bytes = b""

    @property
    def billed_ms(self) -> int:
        return math.ceil(self.init_ms + self.duration_ms)

    @property
    def error(self) -> str:
        """Type and message of the error, empty if there is none."""
        if self.ending == "success":
            return ""
        try:
            found = json.loads(self.payload)
        except ValueError:
            return self.payload.decode("utf-8", "replace")
        return f"{found.get('errorType')}: {found.get('errorMessage')}" if isinstance(found, dict) else str(found)


@dataclass
class Call:
    """One event for one environment."""

    event: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    delivered: float = 0.0
    finished: float = 0.0
    ended: asyncio.Future[tuple[Ending, bytes]] = field(default_factory=asyncio.Future)

    def end(self, ending: Ending, payload: bytes) -> None:
        """The first end counts."""
        if not self.ended.done():
            self.finished = time.monotonic()
            self.ended.set_result((ending, payload))


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


class Environment:
    """Runs one call at a time; between calls it is frozen, as on Lambda. Its temporary folder is its own."""

    def __init__(self, function: Function, folder: Path, logs: Path, endpoint: str, runtime_folder: Path) -> None:
        self.function = function
        self.name = uuid.uuid4().hex
        self.call: Call | None = None
        self._home = folder / self.name
        stream = time.strftime("%Y/%m/%d/", time.gmtime()) + f"[$LATEST]{self.name}"
        self._stream, self._log = stream, logs / function.name / f"{stream}.log"
        self._endpoint, self._runtime = endpoint, runtime_folder
        self._process: asyncio.subprocess.Process | None = None
        self._server: aiohttp.web.ServerRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._calls: asyncio.Queue[Call] = asyncio.Queue()
        self._asked = asyncio.Event()
        self._exited = asyncio.Event()
        self._reason: tuple[Ending, str, str] | None = None
        self._init_error: bytes | None = None
        self._memory = 0

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and not self._exited.is_set()

    async def start(self, credentials: runtime.Credentials) -> None:
        """Start the process; it initializes while `run` waits."""
        self._home.mkdir(parents=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        api = await self._serve()
        environ = runtime.variables(
            self.function, self._runtime, self._home, api, self._endpoint, credentials, self._stream
        )
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *runtime.command(self.function),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                cwd=self.function.folder,
                # Of its own group, but of this session: the system ends frozen groups whose session's parent died.
                process_group=0,
            )
        self._tasks = [asyncio.create_task(self._wait()), asyncio.create_task(self._watch())]

    async def run(self, call: Call) -> Outcome:
        """Give it the call and wait for the end of it, one way or another; never raises for what the code does."""
        cold, began, offset = not self._asked.is_set(), time.monotonic(), self._log.stat().st_size
        self.call, self._memory = call, 0
        self._write(f"START RequestId: {call.request_id} Version: $LATEST\n")
        self._signal(signal.SIGCONT)
        init = await self._ready(call) if cold else 0.0
        if not call.ended.done():
            self._asked.clear()
            self._calls.put_nowait(call)
            await self._worked(call)
        ending, payload = call.ended.result()
        duration = (call.finished - (call.delivered or began + init)) * 1e3
        self._measure()
        outcome = Outcome(ending, payload, cold, init * 1e3, duration, self._memory // _MEGABYTE)
        self._report(call, outcome)
        outcome.log = self._log.read_bytes()[offset:]
        self.call = None
        self._signal(signal.SIGSTOP)
        return outcome

    def kill(self) -> None:
        """End the process at once, as Lambda does with an environment it takes away."""
        self._signal(signal.SIGKILL)

    async def close(self) -> None:
        """End the process and remove what it left."""
        self.kill()
        if self._process is not None:
            await self._exited.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.cleanup()
        await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)

    async def _ready(self, call: Call) -> float:
        """Wait for the first request for work, at most; the seconds it took."""
        began = time.monotonic()
        if not await self._either(self._asked, _INIT_SECONDS + self.function.timeout):
            self._end_by("timeout", "Sandbox.Timedout", f"Task timed out after {self.function.timeout:.2f} seconds")
        if not self._asked.is_set():
            await self._exited.wait()
            self._end_of_process(call)
        return time.monotonic() - began

    async def _worked(self, call: Call) -> None:
        """Wait until the call has ended and the process asks for more, or is gone."""
        if not await self._either(self._asked, self.function.timeout):
            self._end_by("timeout", "Sandbox.Timedout", f"Task timed out after {self.function.timeout:.2f} seconds")
            await self._exited.wait()
        if not call.ended.done():
            await self._exited.wait()
            self._end_of_process(call)

    async def _either(self, event: asyncio.Event, seconds: float) -> bool:
        """Whether `event` or the end of the process came in time."""
        waits = [asyncio.create_task(event.wait()), asyncio.create_task(self._exited.wait())]
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return bool(done)

    def _end_by(self, ending: Ending, kind: str, message: str) -> None:
        self._reason = self._reason or (ending, kind, message)
        self.kill()

    def _end_of_process(self, call: Call) -> None:
        if self._reason is not None:
            ending, kind, message = self._reason
        elif self._init_error is not None:
            call.end("error", self._init_error)
            return
        else:
            ending, kind, message = "exit", "Runtime.ExitError", self._exit_message()
        call.end(ending, _error(kind, f"RequestId: {call.request_id} Error: {message}"))

    def _exit_message(self) -> str:
        code = self._process.returncode if self._process is not None else None
        if not code:
            return "Runtime exited without providing a reason"
        if code < 0:
            return f"Runtime exited with error: signal: {(signal.strsignal(-code) or str(-code)).lower()}"
        return f"Runtime exited with error: exit status {code}"

    async def _wait(self) -> None:
        assert self._process is not None
        await self._process.wait()
        self._exited.set()

    async def _watch(self) -> None:
        """Kill a process that holds more than its function may."""
        while self.alive:
            if self.call is not None and self._measure() > self.function.memory * _MEGABYTE:
                self._end_by("memory", "Runtime.ExitError", "Runtime exited with error: signal: killed")
            await asyncio.sleep(_WATCH_SECONDS)

    def _measure(self) -> int:
        """The most bytes of memory that the process was seen to hold in this call."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._memory = max(self._memory, psutil.Process(self.pid).memory_info().rss if self.alive else 0)
        return self._memory

    def _signal(self, number: int) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def _serve(self) -> str:
        self._server = aiohttp.web.ServerRunner(
            aiohttp.web.Server(self._answer, access_log=None), shutdown_timeout=_CLOSE_SECONDS
        )
        await self._server.setup()
        site = aiohttp.web.TCPSite(self._server, HOST, 0)
        await site.start()
        host, port = self._server.addresses[0][:2]
        return f"{host}:{port}"

    async def _answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        refused = refusal(request.headers.getall("Host", []), request.headers.getall("Origin", []))
        if refused is not None:
            return aiohttp.web.Response(status=403, text=refused)
        parts = request.path.strip("/").split("/")[2:]
        if parts == ["invocation", "next"]:
            return await self._next()
        body = await _read(request)
        if parts == ["init", "error"]:
            self._init_error = body
            return _accepted()
        if len(parts) == 3 and parts[0] == "invocation" and self.call and parts[1] == self.call.request_id:
            return self._ended(self.call, parts[2], body)
        return aiohttp.web.json_response({"errorType": "InvalidRequestID"}, status=400)

    async def _next(self) -> aiohttp.web.StreamResponse:
        self._asked.set()
        call = await self._calls.get()
        call.delivered = time.monotonic()
        deadline = round((time.time() + self.function.timeout) * 1e3)
        headers = {
            "Lambda-Runtime-Aws-Request-Id": call.request_id,
            "Lambda-Runtime-Deadline-Ms": str(deadline),
            "Lambda-Runtime-Invoked-Function-Arn": self.function.arn,
            "Content-Type": "application/json",
        }
        return aiohttp.web.Response(body=call.event, headers=headers)

    def _ended(self, call: Call, what: str, body: bytes) -> aiohttp.web.StreamResponse:
        if what == "error":
            call.end("error", body)
            return _accepted()
        if len(body) > RESPONSE_BYTES:
            message = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_BYTES} bytes)."
            call.end("error", _error("Function.ResponseSizeTooLarge", message))
            return aiohttp.web.json_response({"errorType": "RequestEntityTooLarge"}, status=413)
        call.end("success", body)
        return _accepted()

    def _write(self, line: str) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(line)

    def _report(self, call: Call, outcome: Outcome) -> None:
        parts = [f"REPORT RequestId: {call.request_id}", f"Duration: {outcome.duration_ms:.2f} ms"]
        parts += [f"Billed Duration: {outcome.billed_ms} ms", f"Memory Size: {self.function.memory} MB"]
        parts += [f"Max Memory Used: {outcome.most_memory_mb} MB"]
        parts += [f"Init Duration: {outcome.init_ms:.2f} ms"] if outcome.cold else []
        parts += [f"Status: {outcome.ending}"] if outcome.ending != "success" else []
        self._write(f"END RequestId: {call.request_id}\n" + "\t".join(parts) + "\n")


def _accepted() -> aiohttp.web.StreamResponse:
    return aiohttp.web.json_response({"status": "OK"}, status=202)


async def _read(request: aiohttp.web.BaseRequest) -> bytes:
    """The whole body, but of one that is too large only as much as shows it."""
    parts: list[bytes] = []
    async for part in request.content.iter_any():
        if sum(map(len, parts)) <= RESPONSE_BYTES:
            parts.append(part)
    return b"".join(parts)
