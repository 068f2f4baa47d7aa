"""Workers as Lambda functions, invoked asynchronously."""

from __future__ import annotations

import botocore.exceptions as sdk

from fsd_aws.clients import Clients
from fsd_aws.deployment import Deployment
from fsd_aws.errors import error_code, remake, translate
from fsdcore.contracts.compute import Compute, Invocation
from fsdcore.contracts.limits import ComputeCapabilities
from fsdcore.errors import ComputeError, InputError

_MOST_PAYLOAD_BYTES = 1_000_000
_MEBIBYTE = 1 << 20


class FunctionMissingError(ComputeError, InputError):
    """The function of the deployment is gone."""


class LambdaCompute(Compute):
    """Invokes the function of the deployment once for each worker. The SDK repeats what was throttled.

    With `looks`, for a client, it first asks whether the account allows so many workers at once: those beyond would
    begin after the others have given up.
    """

    def __init__(self, clients: Clients, deployment: Deployment, looks: bool = False) -> None:
        self._clients, self._deployment, self._looks = clients, deployment, looks
        self._problems: dict[int, str] = {}

    @property
    def capabilities(self) -> ComputeCapabilities:
        """Timeout, memory and workers as deployed. Lambda reports neither starts nor exits."""
        return ComputeCapabilities(
            max_seconds=float(self._deployment.timeout_seconds),
            max_workers=self._deployment.workers,
            memory_bytes=self._deployment.memory_mb * _MEBIBYTE,
        )

    def invoke(self, invocation: Invocation) -> None:
        """One `Invoke` with the type ``Event``, which returns once Lambda has queued the start.

        `ComputeError` for a payload that is too large or too many workers for the account's quota,
        `FunctionMissingError` if the function is gone.
        """
        payload = invocation.to_json()
        if len(payload) > _MOST_PAYLOAD_BYTES:
            raise ComputeError(
                f"an invocation of {len(payload):,} bytes for {len(invocation.batches):,} batches; "
                f"Lambda takes {_MOST_PAYLOAD_BYTES:,}; use larger batches"
            )
        if self._looks and (problem := self._problem(invocation.settings.workers)):
            raise ComputeError(problem)
        name = self._deployment.function
        doing = f"starting rank {invocation.rank} on function {name}"
        try:
            self._clients.client("lambda").invoke(FunctionName=name, InvocationType="Event", Payload=payload)
        except sdk.ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                raise FunctionMissingError(f"function {name} is gone; run: {remake(self._deployment.name)}") from error
            raise translate(error, doing, ComputeError) from error
        except sdk.BotoCoreError as error:
            raise translate(error, doing, ComputeError) from error

    def _problem(self, workers: int) -> str:
        """As `too_few`, asked once for each number of workers."""
        if workers not in self._problems:
            self._problems[workers] = too_few(self._clients, workers)
        return self._problems[workers]


def unreserved(clients: Clients) -> int:
    """How many functions the account may have at once, beside those that others have reserved."""
    limit = clients.client("lambda").get_account_settings()["AccountLimit"]
    return int(limit["UnreservedConcurrentExecutions"])


def too_few(clients: Clients, workers: int) -> str:
    """What to say where the account allows fewer functions at once than `workers`; empty where that is not known."""
    try:
        free = unreserved(clients)
    except sdk.ClientError:
        return ""
    if free >= workers:
        return ""
    return (
        f"the account allows {free:,} functions at once, and {workers:,} workers are wanted; ask for more in Service "
        "Quotas (AWS Lambda, Concurrent executions), or take fewer workers"
    )
