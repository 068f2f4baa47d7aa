"""A small function on local AWS."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import pytest

from tests.backends.aws.conftest import Client

ROLE = "arn:aws:iam::000000000000:role/toy"
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
# Does what its event says.
HANDLER = """
import json, os, sys, tempfile, time
import boto3

def handle(event, context):
    print("event", json.dumps(event)[:100])
    if "raise" in event:
        raise ValueError(event["raise"])
    if "exit" in event:
        os._exit(event["exit"])
    if "allocate" in event:
        held = bytearray(event["allocate"])
        time.sleep(60)
    if "answer" in event:
        return "x" * event["answer"]
    if "put" in event:
        boto3.client("s3").put_object(Bucket=event["put"], Key=context.aws_request_id, Body=b"")
    if "wait_for" in event:
        while not os.path.exists(event["wait_for"]):
            time.sleep(0.01)
    if "sleep" in event:
        time.sleep(event["sleep"])
    return {
        "environ": dict(os.environ), "path": sys.path, "cwd": os.getcwd(), "temporary": tempfile.gettempdir(),
        "pid": os.getpid(), "remaining": context.get_remaining_time_in_millis(), "memory": context.memory_limit_in_mb,
        "arn": context.invoked_function_arn, "request": context.aws_request_id, "event": event,
    }
"""


def zipped(**files: str) -> bytes:
    """A zip of Python files, the same bytes each time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.py"), text)
    return packed.getvalue()


class Answered(NamedTuple):
    """What a synchronous invocation gave."""

    payload: Any
    error: str | None
    log: str


class Toy:
    """The function ``toy`` of the test, and calls of it."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def create(self, handler: str = HANDLER, **settings: Any) -> None:
        options = {"Timeout": 20, "MemorySize": 256, "Code": {"ZipFile": zipped(app=handler)}, **settings}
        self.client.create_function(FunctionName="toy", Runtime=RUNTIME, Role=ROLE, Handler="app.handle", **options)

    def call(self, **event: Any) -> Answered:
        import base64

        answer = self.client.invoke(FunctionName="toy", Payload=json.dumps(event), LogType="Tail")
        log = base64.b64decode(answer["LogResult"]).decode()
        return Answered(json.loads(answer["Payload"].read()), answer.get("FunctionError"), log)

    def send(self, **event: Any) -> int:
        answer = self.client.invoke(FunctionName="toy", Payload=json.dumps(event), InvocationType="Event")
        return int(answer["StatusCode"])


Maker: TypeAlias = Callable[..., Toy]


@pytest.fixture
def make_toy(client: Client) -> Maker:
    """Makes the function with settings of Lambda's CreateFunction."""

    def make(handler: str = HANDLER, **settings: Any) -> Toy:
        toy = Toy(client("lambda"))
        toy.create(handler, **settings)
        return toy

    return make
