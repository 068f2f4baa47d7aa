"""What `fsd doctor aws` looks at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends.aws.compute import unreserved
from backends.aws.deploy.stacks import asking
from backends.aws.errors import BucketMissingError
from fsdcore.backend import Check
from fsdcore.errors import DeploymentMissingError
from fsdcore.leases import LEASES

if TYPE_CHECKING:
    from backends.aws.backend import AwsBackend

__all__ = ["checks"]

# SNS counts by region and second; it is the channel queue's, the others have no such limit.
_RATES = "SNS takes 300 to 30,000 a second by region (Service Quotas L-F8E2BA85); beyond, runs on queue are slower"


def checks(backend: AwsBackend, workers: int) -> Iterator[Check]:
    """Region, credentials, concurrency for `workers`, and the deployment, in that order."""
    clients = backend.clients
    yield Check("region", True, clients.region)
    yield Check("credentials", True, backend.credentials())
    with asking(clients, "asking whose credentials these are"):
        who = clients.client("sts").get_caller_identity()
    yield Check("account", True, f"{who['Account']}, {who['Arn']}")
    yield _concurrency(backend, workers)
    yield Check("messages", True, _RATES)
    yield _deployment(backend, workers)


def _concurrency(backend: AwsBackend, workers: int) -> Check:
    with asking(backend.clients, "asking for the quota of Lambda"):
        free = unreserved(backend.clients)
    remedy = "ask for more in Service Quotas: AWS Lambda, Concurrent executions; or take fewer workers"
    return Check("concurrency", free >= workers, f"{free:,} functions at once, {workers} workers wanted", remedy)


def _deployment(backend: AwsBackend, workers: int) -> Check:
    name = backend.settings.name
    try:
        found = backend.deployment
        backend.store.list(LEASES)
    except (DeploymentMissingError, BucketMissingError) as error:
        return Check("deployment", False, error.message)
    remedy = f"run: fsd deploy aws --name {name} --max-workers {workers}"
    return Check("deployment", found.workers >= workers, f"{name}, for up to {found.workers} workers", remedy)
