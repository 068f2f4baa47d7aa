"""A deployment: what was made, and the names of its resources, all of which follow from a few facts.

The function gets it as the environment variable ``FSD_AWS_DEPLOYMENT``; the stack has it as its output ``Deployment``,
where the client finds it.
"""

from __future__ import annotations

from typing import Any

import botocore.exceptions as sdk

from fsd_aws.clients import Clients
from fsd_aws.errors import error_code, translate, unreachable
from fsdcore.contracts.backend import DeploymentFacts
from fsdcore.errors import ConfigError, DeploymentMissingError

VARIABLE = "FSD_AWS_DEPLOYMENT"
OUTPUT = "Deployment"

# Between the name of a deployment, which cannot have it, and what follows: so ``fsd-NAME--*`` is of that one alone.
_SEPARATOR = "--"


def stack_name(name: str) -> str:
    """The name of the main stack and of the function of a deployment."""
    return f"fsd-{name}"


class Deployment(DeploymentFacts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each lane has a queue for every rank. The fields are of `AwsSettings`, but for the first three and `workers`.

    `partition`: the partition of AWS that the region is in, such as ``aws-cn``; a part of every ARN.
    """

    command = "fsd deploy aws"

    account: str
    partition: str
    topics: int
    topic_bytes: int
    payload: str
    visibility_timeout: int
    background_receive: bool
    express_zone: str

    # Names

    @property
    def stack(self) -> str:
        """The main stack: function, role and bucket. The client reads this deployment from its output."""
        return stack_name(self.name)

    @property
    def function(self) -> str:
        """The Lambda function whose instances are the workers."""
        return stack_name(self.name)

    @property
    def role(self) -> str:
        """Roles are of the whole account, so the region is in the name."""
        return f"fsd-{self.name}-{self.region}"

    @property
    def log_group(self) -> str:
        """Where Lambda keeps what workers print, for `AwsSettings.log_days`."""
        return f"/aws/lambda/{self.function}"

    @property
    def bucket(self) -> str:
        """The bucket that every deployment has."""
        return f"fsd-{self.name}-{self.account}-{self.region}"

    @property
    def express_bucket(self) -> str:
        """The directory bucket; empty if there is none."""
        return self.express_pattern.replace("*", self.express_zone) if self.express_zone else ""

    @property
    def express_pattern(self) -> str:
        """The name of the directory bucket, with ``*`` for its zone."""
        return f"fsd-{self.name}-{self.account}--*--x-s3"

    @property
    def data_bucket(self) -> str:
        """Where plans, inputs, outputs and messages are kept."""
        return self.express_bucket or self.bucket

    @property
    def dead_letter_queue(self) -> str:
        """The queue to which Lambda moves starts that failed or waited too long."""
        return f"fsd-{self.name}-dead"

    def part_name(self, part: str) -> str:
        """The name of a queue, a topic or a stack that the deployment has several of; with ``*``, of all."""
        return f"fsd-{self.name}{_SEPARATOR}{part}"

    def queue_name(self, lane: int, rank: int) -> str:
        """The queue that `rank` receives from in runs on `lane`."""
        return self.part_name(f"{lane}-{rank}")

    def topic_name(self, shard: int) -> str:
        """One of the `topics` among which ranks share their publishes; see `shard`."""
        return self.part_name(str(shard))

    def shard(self, rank: int) -> int:
        """The topic that `rank` publishes to."""
        return rank % self.topics

    def target(self, lane: int, rank: int) -> str:
        """The attribute ``target`` of messages for (lane, rank), which the filter of its queue lets through."""
        return f"{lane}-{rank}"

    # Addresses

    def arn(self, service: str, rest: str) -> str:
        """The ARN of what is in the account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{rest}"

    @property
    def function_arn(self) -> str:
        """The function, in the policies of those who deploy and who run."""
        return self.arn("lambda", f"function:{self.function}")

    @property
    def log_group_arn(self) -> str:
        """The log group, in the policies of workers and of who deploys; ``:*`` after it means its streams."""
        return self.arn("logs", f"log-group:{self.log_group}")

    @property
    def dead_letter_queue_arn(self) -> str:
        """The dead letter queue, in the policies of workers and of who deploys."""
        return self.arn("sqs", self.dead_letter_queue)

    def topic_arn(self, shard: int) -> str:
        """The topic as `PublishBatch` takes it."""
        return self.arn("sns", self.topic_name(shard))

    def queue_arn(self, lane: int, rank: int) -> str:
        """The queue as the endpoint of a topic's subscription."""
        return self.arn("sqs", self.queue_name(lane, rank))

    def queue_url(self, lane: int, rank: int, endpoint: str) -> str:
        """`endpoint` is that of the SQS client, such as ``https://sqs.eu-west-1.amazonaws.com``."""
        return f"{endpoint.rstrip('/')}/{self.account}/{self.queue_name(lane, rank)}"


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
