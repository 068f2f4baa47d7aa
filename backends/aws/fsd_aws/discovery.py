"""Finding a deployment: its stack tells all there is to know, in one call."""

from __future__ import annotations

from typing import Any

import botocore.exceptions as sdk

from fsd_aws.clients import Clients
from fsd_aws.deployment import OUTPUT, Deployment, stack_name
from fsd_aws.errors import error_code, translate, unreachable
from fsdcore.errors import ConfigError, DeploymentMissingError

__all__ = ["find_deployment"]

# A stack in one of these states has all its resources; an update that failed has been taken back.
_READY = frozenset(
    {
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
    }
)


def find_deployment(clients: Clients, name: str) -> Deployment:
    """The deployment of that name in the region of `clients`.

    `DeploymentMissingError` if there is none or it is not finished; `CredentialsError` or `ConfigError` if AWS cannot
    be asked.
    """
    stack = _describe(clients, name)
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}
    if stack["StackStatus"] not in _READY or OUTPUT not in outputs:
        raise DeploymentMissingError(
            f"deployment {name} in {clients.region} cannot be used, its stack is {stack['StackStatus']}; "
            f"run: fsd deploy aws --name {name}"
        )
    return Deployment.from_json(outputs[OUTPUT])


def _describe(clients: Clients, name: str) -> dict[str, Any]:
    doing = f"looking for deployment {name} in {clients.region}"
    try:
        answer = clients.client("cloudformation").describe_stacks(StackName=stack_name(name))
        stack: dict[str, Any] = answer["Stacks"][0]
    except sdk.EndpointConnectionError as error:
        raise unreachable(error, doing, clients.region) from error
    except sdk.ClientError as error:
        if error_code(error) == "ValidationError":
            raise DeploymentMissingError(
                f"no deployment {name} in {clients.region}; run: fsd deploy aws --name {name}"
            ) from error
        raise translate(error, doing, DeploymentMissingError) from error
    except sdk.BotoCoreError as error:
        raise translate(error, doing, ConfigError) from error
    return stack
