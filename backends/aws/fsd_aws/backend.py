"""The AWS backend: Lambda, SNS and SQS, S3."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from fsd_aws.clients import Clients
from fsd_aws.compute import LambdaCompute
from fsd_aws.deployment import Deployment, find_deployment
from fsd_aws.errors import remake
from fsd_aws.queue import SnsChannel, SqsChannel, queue_capabilities, sqs_capabilities
from fsd_aws.settings import AwsSettings
from fsd_aws.store import S3Store
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Channel
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.messages.object_channel import ObjectChannel, object_channel_capabilities

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsdcore.contracts.backend import Check, Provisioner

_SETTLE_SECONDS = 30.0


class AwsBackend(Backend):
    """Runs on a deployment, which is looked for when first needed, or given: a worker knows its own."""

    name = "aws"
    summary = "Lambda functions, SNS and SQS or S3 between them, objects in S3"
    channels = ("queue", "sqs", "object")
    settings_type = AwsSettings

    def __init__(self, settings: Any = None, deployment: Deployment | None = None) -> None:
        super().__init__(deployment.settings(AwsSettings) if deployment else settings)
        # A worker that knows its deployment may be the first of a role that was just made.
        self.clients = Clients(self.settings.region, self.settings.profile, _SETTLE_SECONDS if deployment else 0.0)
        self._known, self._is_client = deployment, deployment is None

    @property
    def deployment(self) -> Deployment:
        """What runs use; `DeploymentMissingError` if it is not there."""
        if self._known is None:
            self._known = find_deployment(self.clients, self.settings.name)
        return self._known

    @cached_property
    def store(self) -> S3Store:
        """Over the directory bucket if the deployment has one, else over its general purpose bucket."""
        deployment = self.deployment
        return S3Store(self.clients, deployment.data_bucket, remake(deployment.name))

    @cached_property
    def compute(self) -> LambdaCompute:
        """Lambda. A client's also looks at the account's concurrency quota before it starts workers."""
        return LambdaCompute(self.clients, self.deployment, looks=self._is_client)

    def open_channel(self, kind: str, address: Address) -> Channel:
        """``queue`` publishes through SNS, ``sqs`` sends straight to SQS, ``object`` writes to the store."""
        if self.check_channel(kind) == "object":
            return ObjectChannel(self.store, address)
        channel = SnsChannel if kind == "queue" else SqsChannel
        return channel(self.clients, self.deployment, address)

    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        """Those of the deployment if it is known, else those that the settings would give one."""
        if self.check_channel(kind) == "object":
            return object_channel_capabilities(S3Store(self.clients, "").capabilities)
        of = self._known or self.settings
        return queue_capabilities(of) if kind == "queue" else sqs_capabilities(of)

    def credentials(self) -> str:
        """Where the SDK found credentials; AWS is not asked whether it accepts them."""
        return self.clients.credentials()

    def provisioner(self) -> Provisioner:
        """For CloudFormation. Imported here, as the package of a worker lacks ``fsd_aws.deploy``."""
        from fsd_aws.deploy import AwsProvisioner

        return AwsProvisioner(self.clients, self.settings, self.observer)

    def checks(self, workers: int) -> Iterable[Check]:
        """Region, credentials, account, the quota of concurrent functions, message rates, the deployment."""
        from fsd_aws.deploy.provisioner import checks

        return checks(self.clients, self.settings.name, workers)

    def close(self) -> None:
        """Closes the SDK's connections; a client that is used again is made anew."""
        self.clients.close()
