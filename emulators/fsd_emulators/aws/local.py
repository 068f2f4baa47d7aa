"""Local AWS for those who use it: start, variables, logs, faults, stop."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from fsd_emulators.aws.lateness import Lateness
from fsd_emulators.aws.records import EnvironmentRecord, InvocationRecord, RequestRecord
from fsd_emulators.environments import tell_stderr
from fsd_emulators.processes import DIRECT, HOST, ServerProcess, free_port, http_ready
from fsd_emulators.server import Emulator
from fsdcore.errors import MissingExtraError, ServerError
from fsdcore.faults import Fault

_Type = TypeVar("_Type")
_PACKAGES = ("aiohttp", "awslambdaric", "boto3", "psutil")
_STOP_SECONDS = 20.0
_ANSWER_SECONDS = 60.0


class LocalAws(Emulator):
    """SNS, SQS, S3, IAM, STS, CloudFormation and Lambda at one endpoint of this machine.

    All it keeps lies in a new folder below `folder`. `concurrency` is the account's limit of functions at
    work, `retry_seconds` the pause before Lambda repeats a failed event (Lambda: a minute). With `enforce` signatures
    and IAM policies count, and a function has the rights of its role; the owner, whose keys `environment` has, may
    do everything. `tell` hears of what is installed at the first start on a machine.
    """

    def __init__(
        self,
        folder: Path,
        *,
        region: str = "us-east-1",
        port: int | None = None,
        enforce: bool = False,
        concurrency: int = 1_000,
        retry_seconds: float = 1.0,
        tell: Callable[[str], None] = tell_stderr,
    ) -> None:
        self.region = region
        self._port = port
        self._options = ["--region", region, "--concurrency", str(concurrency), "--retry-seconds", str(retry_seconds)]
        self._options += ["--enforce"] if enforce else []
        self._base, self._tell = folder, tell
        self._process: ServerProcess | None = None
        self.folder = folder
        self.endpoint = ""

    @property
    def services(self) -> Mapping[str, str]:
        return {"SNS, SQS, S3, IAM, STS, CloudFormation, Lambda": self.endpoint}

    def start(self) -> Self:
        _check_packages()
        from fsd_emulators.aws.ministack import ministack_command

        ministack_command(self._tell)
        port = self._port or free_port()
        self.endpoint = f"http://{HOST}:{port}"
        self.folder = Path(tempfile.mkdtemp(prefix="aws-", dir=self._base))
        command = [sys.executable, "-m", "fsd_emulators.aws", "--port", str(port)]
        self._process = ServerProcess(
            "local AWS",
            [*command, "--folder", str(self.folder / "work"), *self._options],
            log=self.folder / "server.log",
            ready=http_ready(f"{self.endpoint}/_fsd/health"),
            stop_seconds=_STOP_SECONDS,
        )
        self._process.start()
        return self

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def check(self) -> None:
        """`ServerError` if it has ended."""
        if self._process is None or self._process.pid is None:
            tail = self._process.log_tail() if self._process is not None else ""
            raise ServerError(f"local AWS has ended; its log ends:\n{tail}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()

    def requests(self, since: int = 0) -> list[RequestRecord]:
        """The log of requests, oldest first; only those whose number is above `since`."""
        return self._ask(f"requests?since={since}", list[RequestRecord])

    def invocations(self) -> list[InvocationRecord]:
        """The attempts to run functions that have ended, oldest first."""
        return self._ask("invocations", list[InvocationRecord])

    def environments(self) -> list[EnvironmentRecord]:
        """The execution environments that are there, busy ones first."""
        return self._ask("environments", list[EnvironmentRecord])

    def pending(self) -> int:
        """How many asynchronous events have not ended."""
        return self._ask("pending", int)

    def kill(self, environment: str) -> bool:
        """Kill an execution environment in the middle of what it does; whether there was one of that name."""
        return self._ask("kill", bool, environment.encode())

    def set_faults(self, *faults: Fault) -> None:
        """Make these faults from now on, instead of those before; none ends them.

        Calls are named by service and action, such as ``sqs:SendMessage``. `Refuse` answers with an error and forwards
        nothing, `Disconnect` ends the connection before the request is forwarded, or after (a repeated request is a
        true duplicate), `Delay` and `Duplicate` forward late and twice, `InPart` refuses every second entry of a batch,
        and `Crash` kills the execution environment that asks.
        """
        self._ask("faults", type(None), msgspec.json.encode(faults))

    def set_lateness(self, **seconds: float) -> None:
        """Make what AWS does after a while take so many seconds: the fields of `Lateness`; those not given, none."""
        self._ask("lateness", type(None), msgspec.json.encode(Lateness(**seconds)))

    def reset(self) -> None:
        """Forget everything: resources, functions, events, environments, logs, faults."""
        self._ask("reset", type(None), b"")

    def logs(self, function: str) -> str:
        """What all environments of the function wrote, and Lambda's own lines."""
        files = sorted((self.folder / "work" / "logs" / function).rglob("*.log"))
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)

    def _ask(self, word: str, kind: type[_Type], body: bytes | None = None) -> _Type:
        request: Any = urllib.request.Request(f"{self.endpoint}/_fsd/{word}", data=body)
        try:
            with DIRECT.open(request, timeout=_ANSWER_SECONDS) as answer:
                return msgspec.json.decode(answer.read(), type=kind)
        except urllib.error.URLError as error:
            raise ServerError(f"local AWS does not answer: {error}") from error


def _check_packages() -> None:
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"local AWS needs the packages {', '.join(missing)}, which are not installed; "
            f"run: pip install {' '.join(missing)}"
        )
