"""What runs inside the function: a request is an invocation, and is answered when its worker has ended.

An instance takes one request at a time and lives on for the next, which finds the clients and the plan part of the
last run still there.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import traceback
from functools import cache
from typing import Any, TypeAlias

import msgspec

from fsd_gcp.backend import GcpBackend
from fsd_gcp.calls.asking import OWN, SENT, TOLD, TRIAL
from fsd_gcp.deployment import VARIABLE, Deployment
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.compute import Invocation
from fsdcore.errors import ConfigError, FsdError, WireError
from fsdcore.worker.plan_cache import PlanCache
from fsdcore.worker.worker import keep_memory_together, process_seconds, run_worker

Answer: TypeAlias = tuple[str, int, dict[str, str]]

# What is kept of the function's time to tell of a failure and to see the others end.
_RESERVE_SECONDS = 5.0
# The share of the function's memory that plan parts may keep between workers.
_KEPT = 3
_MEBI = 1 << 20
_LONGEST_START_SECONDS = 60.0
# What a trial may take, and the share of the function's time that it leaves the answer.
_TRIAL_SECONDS, _TRIAL_SHARE = 60.0, 0.8
# On every answer, to tell it from one of the service, or of what is before it.
_MARK = {OWN: "1"}


@cache
def _environment() -> tuple[GcpBackend, PlanCache]:
    """What lasts as long as the instance: connections, and parts of plans."""
    text = os.environ.get(VARIABLE)
    if text is None:
        raise ConfigError(f"the environment variable {VARIABLE} is missing; run: fsd deploy gcp")
    deployment = Deployment.from_json(text)
    keep_memory_together()
    return GcpBackend(deployment=deployment), PlanCache(deployment.memory_mb * _MEBI // _KEPT)


def worker(request: Any) -> Answer:
    """The entry point: `request` is a Flask request whose body is an `Invocation`."""
    start = SYSTEM_CLOCK.now()
    if TRIAL in request.headers:
        return _trial(request)
    try:
        invocation = Invocation.from_json(request.get_data())
    except WireError as error:
        return str(error), 400, _MARK
    backend, plans = _environment()
    most = backend.deployment.workers
    if not 0 <= invocation.rank < invocation.settings.workers <= most:
        return f"rank {invocation.rank} of {invocation.settings.workers} workers; the deployment has {most}", 400, _MARK
    life = _life(backend.deployment.timeout_seconds, request.headers.get(SENT, ""))
    backend.clients.wake()
    try:
        run_worker(backend, invocation, end=start + life, plans=plans, start_seconds=next(_starts))
    except FsdError as error:
        return _failed(str(error))
    except Exception as error:  # noqa: BLE001 - the end of the worker, which has told of it; the log has the trace
        traceback.print_exception(error, file=sys.stderr)
        return _failed(f"{type(error).__name__}: {error}")
    finally:
        backend.join(start + life - SYSTEM_CLOCK.now())
        backend.clients.lie_idle()
    return "", 200, _MARK


def _trial(request: Any) -> Answer:
    from fsd_gcp.trial import tried

    backend, _ = _environment()
    life = _life(backend.deployment.timeout_seconds, request.headers.get(SENT, ""))
    backend.clients.wake()
    found = tried(backend, _number(request.headers[TRIAL]), min(_TRIAL_SECONDS, _TRIAL_SHARE * life))
    backend.clients.lie_idle()
    return msgspec.json.encode(found).decode(), 200, {"Content-Type": "application/json", **_MARK}


def _number(text: str) -> int:
    """The place that a trial begins with: the first unless told."""
    return int(text) if text.isascii() and text.isdigit() else 0


def _life(timeout: float, sent: str) -> float:
    """What is left of the function's time, which begins with the request: the wait for an instance and its start count.

    Clocks of other machines may be wrong, so no more is believed than such a wait takes.
    """
    try:
        waited = SYSTEM_CLOCK.wall() - float(sent)
    except ValueError:
        waited = 0.0
    if not math.isfinite(waited):
        waited = 0.0
    longest = min(_LONGEST_START_SECONDS, timeout / 4)
    return max(1.0, timeout - _RESERVE_SECONDS - min(max(waited, 0.0), longest))


def _failed(text: str) -> Answer:
    return text, 500, {TOLD: "failure", **_MARK}


# What the process took to start, imports included, which Cloud Run bills with the first request.
_starts = itertools.chain([process_seconds()], itertools.repeat(0.0))
