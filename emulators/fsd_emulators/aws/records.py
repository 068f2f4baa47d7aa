"""What local AWS tells of itself: JSON between its process and its clients."""

from __future__ import annotations

from typing import Literal

import msgspec


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request that came to the endpoint.

    `service` and `action` are AWS's words, such as ``sqs`` and ``ReceiveMessage``; `resource` the queue's or function's
    name, the topic's ARN, or bucket/key. `status` is 0 where the client left before the answer. `entries` counts
    the messages of a batch or of what was received, `billed_bytes` what SNS and SQS bill of the messages sent.
    `source` is the execution environment that asked, empty for others. `fault` is the name of the fault made here.
    """

    number: int
    time: float
    service: str
    action: str
    resource: str
    status: int
    source: str = ""
    request_bytes: int = 0
    response_bytes: int = 0
    entries: int = 0
    billed_bytes: int = 0
    fault: str = ""


class InvocationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to run a function, ended. Times are in milliseconds, `started` in seconds of the wall clock.

    `outcome` is ``success``, ``error`` (the handler's), ``timeout``, ``memory`` or ``exit`` (its process ended).
    `billed_ms` is what Lambda bills: duration and, for a cold start, initialization, rounded up together.
    """

    function: str
    request_id: str
    asynchronous: bool
    attempt: int
    environment: str
    cold: bool
    started: float
    init_ms: float
    duration_ms: float
    billed_ms: int
    memory_mb: int
    most_memory_mb: int
    outcome: Literal["success", "error", "timeout", "memory", "exit"]
    error: str = ""


class EnvironmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An execution environment that is there: `event` is what it works on, empty if it is idle."""

    name: str
    function: str
    pid: int
    request_id: str
    event: str
