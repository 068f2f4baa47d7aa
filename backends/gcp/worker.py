"""What runs inside the function: a request is an invocation, and is answered when its worker has ended.

An instance takes one request at a time and lives on for the next, which finds the clients and the plan part of the
last run still there.
"""

from __future__ import annotations

import os
import sys
import traceback
from functools import cache
from typing import Any, TypeAlias

from backends.gcp.backend import GcpBackend
from backends.gcp.compute import TOLD
from backends.gcp.deployment import VARIABLE, Deployment
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.compute import Invocation
from fsdcore.errors import ConfigError, FsdError, WireError
from fsdcore.plan_cache import PlanCache
from fsdcore.worker import keep_memory_together, run_worker

__all__ = ["worker"]

Answer: TypeAlias = tuple[str, int, dict[str, str]]

# What is kept of the function's time to tell of a failure and to see the others end.
_RESERVE_SECONDS = 5.0
# The share of the function's memory that plan parts may keep between workers.
_KEPT = 3
_MEBI = 1 << 20


@cache
def _environment() -> tuple[GcpBackend, PlanCache]:
    """What lasts as long as the instance: connections, and parts of plans."""
    text = os.environ.get(VARIABLE)
    if text is None:
        raise ConfigError(f"the environment variable {VARIABLE} is missing; run: fsd deploy gcp")
    deployment = Deployment.from_json(text)
    keep_memory_together()
    return GcpBackend.for_worker(deployment), PlanCache(deployment.memory_mb * _MEBI // _KEPT)


def worker(request: Any) -> Answer:
    """The entry point: `request` is a Flask request whose body is an `Invocation`."""
    start = SYSTEM_CLOCK.now()
    try:
        invocation = Invocation.from_json(request.get_data())
    except WireError as error:
        return str(error), 400, {}
    backend, plans = _environment()
    most = backend.deployment.workers
    if not 0 <= invocation.rank < invocation.workers <= most:
        return f"rank {invocation.rank} of {invocation.workers} workers; the deployment has {most}", 400, {}
    life = max(1.0, backend.deployment.timeout_seconds - _RESERVE_SECONDS)
    try:
        run_worker(backend, invocation, end=start + life, plans=plans)
    except FsdError as error:
        return _failed(str(error))
    except Exception as error:  # noqa: BLE001 - the end of the worker, which has told of it; the log has the trace
        traceback.print_exception(error, file=sys.stderr)
        return _failed(f"{type(error).__name__}: {error}")
    finally:
        backend.join(start + life - SYSTEM_CLOCK.now())
    return "", 200, {}


def _failed(text: str) -> Answer:
    return text, 500, {TOLD: "failure"}
