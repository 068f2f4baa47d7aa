"""What `fsd doctor aws` looks at."""

from __future__ import annotations

from collections.abc import Iterator

from fsd_aws.clients import Clients
from fsd_aws.compute import unreserved
from fsd_aws.deploy.stacks import asking
from fsd_aws.discovery import find_deployment
from fsd_aws.errors import BucketMissingError, remake
from fsd_aws.store import S3Store
from fsdcore.contracts.backend import Check
from fsdcore.errors import DeploymentMissingError
from fsdcore.worker.leases import LEASES

__all__ = ["checks"]

# SNS counts by region and second; it is the channel queue's, the others have no such limit.
_RATES = "SNS takes 300 to 30,000 a second by region (Service Quotas L-F8E2BA85); beyond, runs on queue are slower"


def checks(clients: Clients, name: str, workers: int) -> Iterator[Check]:
    """Region, credentials, concurrency for `workers`, and the deployment of that `name`, in that order."""
    yield Check("region", True, clients.region)
    yield Check("credentials", True, clients.credentials())
    with asking(clients, "asking whose credentials these are"):
        who = clients.client("sts").get_caller_identity()
    yield Check("account", True, f"{who['Account']}, {who['Arn']}")
    yield _concurrency(clients, workers)
    yield Check("messages", True, _RATES)
    yield _deployment(clients, name, workers)


def _concurrency(clients: Clients, workers: int) -> Check:
    with asking(clients, "asking for the quota of Lambda"):
        free = unreserved(clients)
    remedy = "ask for more in Service Quotas: AWS Lambda, Concurrent executions; or take fewer workers"
    return Check("concurrency", free >= workers, f"{free:,} functions at once, {workers} workers wanted", remedy)


def _deployment(clients: Clients, name: str, workers: int) -> Check:
    try:
        found = find_deployment(clients, name)
        S3Store(clients, found.data_bucket, remake(name)).list(LEASES)
    except (DeploymentMissingError, BucketMissingError) as error:
        return Check("deployment", False, error.message)
    remedy = f"run: fsd deploy aws --name {name} --max-workers {workers}"
    return Check("deployment", found.workers >= workers, f"{name}, for up to {found.workers} workers", remedy)
