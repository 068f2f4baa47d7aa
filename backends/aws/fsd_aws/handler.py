"""The worker's side of Lambda: ``fsd_aws.handler.handle`` is the entry point of the function."""

from __future__ import annotations

import itertools
import os
from functools import cache
from typing import Any

from fsd_aws.backend import AwsBackend
from fsd_aws.deployment import VARIABLE, Deployment
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.compute import Invocation
from fsdcore.errors import ConfigError, WireError
from fsdcore.worker.plan_cache import PlanCache
from fsdcore.worker.worker import keep_memory_together, process_seconds, run_worker

# What a worker needs to tell client and peers that its time is up, before Lambda ends it; at most half of its time.
_REPORT_SECONDS = 4.0
# The share of the function's memory that plan parts may keep between workers.
_KEPT = 3
_MEBIBYTE = 1 << 20


def handle(event: Any, context: Any) -> dict[str, Any]:
    """Run one worker; `event` is an `Invocation`.

    `WireError` for anything else, and for more workers than the deployment has. What fails in the worker is told to
    the client through the store, and raised for the log of the function.
    """
    left = context.get_remaining_time_in_millis() / 1000
    end = SYSTEM_CLOCK.now() + left - min(_REPORT_SECONDS, left / 2)
    invocation = Invocation.from_event(event)
    backend, plans = _environment()
    most = backend.deployment.workers
    if not 0 <= invocation.rank < invocation.settings.workers <= most:
        raise WireError(f"rank {invocation.rank} of {invocation.settings.workers} workers; the deployment has {most}")
    run_worker(backend, invocation, end=end, plans=plans, start_seconds=next(_starts))
    return {"run": invocation.run, "rank": invocation.rank}


@cache
def _environment() -> tuple[AwsBackend, PlanCache]:
    """What lasts as long as the environment of the function: connections, and parts of plans."""
    text = os.environ.get(VARIABLE)
    if not text:
        raise ConfigError(f"the variable {VARIABLE} is not set; run: fsd deploy aws")
    deployment = Deployment.from_json(text)
    keep_memory_together()
    return AwsBackend(deployment=deployment), PlanCache(deployment.memory_mb * _MEBIBYTE // _KEPT)


# What the environment took to start, imports included, which Lambda bills with the first event and no other.
_starts = itertools.chain([process_seconds()], itertools.repeat(0.0))
