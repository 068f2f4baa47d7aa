"""Workers as Lambda functions, invoked asynchronously."""

from __future__ import annotations

import botocore.exceptions as sdk

from backends.aws.clients import Clients
from backends.aws.deployment import Deployment
from backends.aws.errors import error_code, remake, translate
from fsdcore.capabilities import ComputeCapabilities
from fsdcore.compute import Compute, Invocation
from fsdcore.errors import ComputeError, InputError

__all__ = ["FunctionMissingError", "LambdaCompute"]

_MOST_PAYLOAD_BYTES = 1_000_000
_MEBIBYTE = 1 << 20


class FunctionMissingError(ComputeError, InputError):
    """The function of the deployment is gone."""


class LambdaCompute(Compute):
    """Invokes the function of the deployment once for each worker. The SDK repeats what was throttled."""

    def __init__(self, clients: Clients, deployment: Deployment) -> None:
        self._clients, self._deployment = clients, deployment

    @property
    def capabilities(self) -> ComputeCapabilities:
        return ComputeCapabilities(
            max_payload_bytes=_MOST_PAYLOAD_BYTES,
            max_seconds=float(self._deployment.timeout_seconds),
            max_workers=self._deployment.workers,
            memory_bytes=self._deployment.memory_mb * _MEBIBYTE,
        )

    def invoke(self, invocation: Invocation) -> None:
        payload = invocation.to_json()
        if len(payload) > _MOST_PAYLOAD_BYTES:
            raise ComputeError(
                f"an invocation of {len(payload):,} bytes for {len(invocation.batches):,} batches; "
                f"Lambda takes {_MOST_PAYLOAD_BYTES:,}; use larger batches"
            )
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
