"""A deployment: what was made, and the names of its resources, all of which follow from a few facts.

The function gets it as the environment variable ``FSD_AWS_DEPLOYMENT``; the stack has it as its output ``Deployment``,
where the client finds it.
"""

from __future__ import annotations

import msgspec

from backends.aws.settings import AwsSettings
from fsdcore.errors import ConfigError

__all__ = ["OUTPUT", "VARIABLE", "Deployment", "stack_name"]

VARIABLE = "FSD_AWS_DEPLOYMENT"
OUTPUT = "Deployment"

_PARTITIONS = {"cn": "aws-cn", "us-gov": "aws-us-gov"}


def stack_name(name: str) -> str:
    """The name of the stack, the function and the role of a deployment."""
    return f"fsd-{name}"


class Deployment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resources for runs of up to `workers`, on `lanes` lanes: each has a queue for every rank.

    The other fields are those of `AwsSettings` that its workers go by.
    """

    name: str
    region: str
    account: str
    workers: int
    lanes: int
    topics: int
    topic_bytes: int
    payload: str
    visibility_timeout: int
    publishes_in_flight: int
    background_receive: bool
    express_zone: str
    memory_mb: int
    timeout_seconds: int

    @classmethod
    def of(cls, settings: AwsSettings, *, region: str, account: str, workers: int) -> Deployment:
        """The deployment that `settings` describe."""
        taken = set(cls.__struct_fields__) - {"region", "account", "workers"}
        values = {field: getattr(settings, field) for field in taken}
        return cls(region=region, account=account, workers=workers, **values)

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Deployment:
        """Read what `to_json` wrote; `ConfigError` for what another release made."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"the deployment was made by another release ({error}); run: fsd deploy aws") from error

    # Names

    @property
    def stack(self) -> str:
        return stack_name(self.name)

    @property
    def function(self) -> str:
        return stack_name(self.name)

    @property
    def role(self) -> str:
        return stack_name(self.name)

    @property
    def log_group(self) -> str:
        return f"/aws/lambda/{self.function}"

    @property
    def bucket(self) -> str:
        """The bucket that every deployment has."""
        return f"fsd-{self.name}-{self.account}-{self.region}"

    @property
    def express_bucket(self) -> str:
        """The directory bucket; empty if there is none."""
        return f"fsd-{self.name}-{self.account}--{self.express_zone}--x-s3" if self.express_zone else ""

    @property
    def data_bucket(self) -> str:
        """Where plans, inputs, outputs and messages are kept."""
        return self.express_bucket or self.bucket

    @property
    def dead_letter_queue(self) -> str:
        return f"fsd-{self.name}-dead"

    def queue_name(self, lane: int, rank: int) -> str:
        return f"fsd-{self.name}-{lane}-{rank}"

    def topic_name(self, shard: int) -> str:
        return f"fsd-{self.name}-{shard}"

    def shard(self, rank: int) -> int:
        """The topic that `rank` publishes to."""
        return rank % self.topics

    def target(self, lane: int, rank: int) -> str:
        """The attribute ``target`` of messages for (lane, rank), which the filter of its queue lets through."""
        return f"{lane}-{rank}"

    # Addresses

    @property
    def partition(self) -> str:
        """The partition of AWS that the region is in, a part of every ARN."""
        return next((name for start, name in _PARTITIONS.items() if self.region.startswith(f"{start}-")), "aws")

    def _arn(self, service: str, rest: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{rest}"

    @property
    def function_arn(self) -> str:
        return self._arn("lambda", f"function:{self.function}")

    @property
    def log_group_arn(self) -> str:
        return self._arn("logs", f"log-group:{self.log_group}")

    @property
    def dead_letter_queue_arn(self) -> str:
        return self._arn("sqs", self.dead_letter_queue)

    def topic_arn(self, shard: int) -> str:
        return self._arn("sns", self.topic_name(shard))

    def queue_arn(self, lane: int, rank: int) -> str:
        return self._arn("sqs", self.queue_name(lane, rank))

    def queue_url(self, lane: int, rank: int, endpoint: str) -> str:
        """`endpoint` is that of the SQS client, such as ``https://sqs.eu-west-1.amazonaws.com``."""
        return f"{endpoint.rstrip('/')}/{self.account}/{self.queue_name(lane, rank)}"
