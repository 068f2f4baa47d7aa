"""SNS, SQS, S3, IAM, CloudFormation and the definitions of functions: the program ministack, in its own environment."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

from fsd_emulators.aws.handler_rights import rights_table
from fsd_emulators.aws.lateness import Lateness
from fsd_emulators.environments import environment_python, tell_stderr
from fsd_emulators.processes import HOST, ServerProcess, free_port, http_ready
from fsd_emulators.web import client
from fsdcore.errors import MissingExtraError, ServerError

ACCESS_KEY = SECRET_KEY = "test"
_PROGRAM = Path(__file__).parent / "ministack_program.py"
# The types that templates of deployments have.
_KINDS = (
    "AWS::IAM::Role",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Function",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
)
# ministack's server ends idle connections after 5 s; a request must not meet that.
_KEEP_SECONDS = 2.0


def ministack_command(tell: Callable[[str], None]) -> list[str | Path]:
    """What starts it, in its environment, which is made if it is not there; `tell` hears of that.

    `ServerError` if it cannot be made.
    """
    python = environment_python("ministack", Path(__file__).with_name("requirements.txt"), tell)
    # Isolated: the modules beside the program must not hide those of ministack.
    return [python, "-I", _PROGRAM]


def _handler_rights(region: str) -> dict[str, dict[str, Any]]:
    try:
        return rights_table(_KINDS, region)
    except ImportError as error:
        raise MissingExtraError(
            f"what CloudFormation asks IAM is in packages that are not installed ({error.name}); "
            "run: pip install cfn-lint parliament"
        ) from error


class Answer(NamedTuple):
    """What ministack answered."""

    status: int
    body: bytes


class Ministack:
    """The program as a process, and requests to it that are signed as its owner's.

    Everything it writes lies in `folder`. With `enforce` it checks signatures and IAM policies, also for each resource
    that CloudFormation makes, which needs the packages cfn-lint and parliament. The owner's requests
    are made from an asyncio loop, with `session`, which `open` makes and `close` ends.
    """

    session: aiohttp.ClientSession

    def __init__(self, folder: Path, *, region: str, enforce: bool = False) -> None:
        self.region, self.enforces = region, enforce
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._folder = folder
        self._process = ServerProcess(
            "ministack",
            ministack_command(tell_stderr),
            environ=self._environ(enforce),
            folder=folder,
            log=folder / "ministack.log",
            ready=http_ready(f"{self.url}/_ministack/health"),
        )

    async def open(self) -> None:
        """Start it and wait until it answers; `ServerError` if it does not."""
        (self._folder / "tmp").mkdir(parents=True)
        if self.enforces:
            self._rights.write_text(json.dumps(_handler_rights(self.region)), encoding="utf-8")
        await asyncio.to_thread(self._process.start)
        self.session = client(_KEEP_SECONDS)

    async def close(self) -> None:
        """End it, with all that it holds."""
        if hasattr(self, "session"):
            await self.session.close()
        await asyncio.to_thread(self._process.stop)

    async def reset(self) -> None:
        """Forget all resources."""
        answer = await self._send("POST", f"{self.url}/_ministack/reset", {}, b"")
        self._lateness.unlink(missing_ok=True)
        if answer.status != 200:
            raise ServerError(f"ministack could not be reset: status {answer.status}")

    async def call(
        self,
        service: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        region: str | None = None,
    ) -> Answer:
        """One request, signed as the owner's; any status is an answer."""
        request = AWSRequest(method, self.url + path, data=body, headers=dict(headers or {}))
        SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), service, region or self.region).add_auth(request)
        return await self._send(method, self.url + path, dict(request.headers.items()), body)

    async def fetch(self, url: str) -> Answer:
        """A presigned address of ministack's own."""
        return await self._send("GET", url, {}, b"")

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        try:
            async with self.session.request(
                method, URL(url, encoded=True), headers=headers, data=body or None
            ) as answer:
                return Answer(answer.status, await answer.read())
        except aiohttp.ClientError as error:
            raise ServerError(f"ministack does not answer: {error}") from error

    @property
    def _rights(self) -> Path:
        return self._folder / "rights.json"

    @property
    def _lateness(self) -> Path:
        return self._folder / "lateness.json"

    def set_lateness(self, lateness: Lateness) -> None:
        """Make what AWS does after a while take so long."""
        new = self._lateness.with_suffix(".new")
        new.write_text(json.dumps(lateness._asdict()), encoding="utf-8")
        new.replace(self._lateness)

    def _environ(self, enforce: bool) -> dict[str, str]:
        folder = self._folder
        strict = {"FSD_HANDLER_RIGHTS": str(self._rights)} if enforce else {}
        return strict | {
            "FSD_LATENESS": str(self._lateness),
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "STATE_DIR": str(folder / "state"),
            "S3_DATA_DIR": str(folder / "s3"),
            "BIND_HOST": HOST,
            "MINISTACK_HOST": HOST,
            "MINISTACK_REGION": self.region,
            "GATEWAY_PORT": str(self.port),
            "EDGE_PORT": str(self.port),
            "LOG_LEVEL": "WARNING",
            "AUTH": "true" if enforce else "false",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
