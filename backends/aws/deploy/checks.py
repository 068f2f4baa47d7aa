"""What `fsd doctor aws` looks at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends.aws.deploy.stacks import asking
from backends.aws.errors import BucketMissingError
from fsdcore.backend import Check
from fsdcore.errors import DeploymentMissingError
from fsdcore.leases import LEASES

if TYPE_CHECKING:
    from backends.aws.backend import AwsBackend

__all__ = ["checks"]


def checks(backend: AwsBackend, workers: int) -> Iterator[Check]:
    """Region, credentials, concurrency for `workers`, and the deployment, in that order."""
    clients = backend.clients
    yield Check("region", True, clients.region)
    yield Check("credentials", True, backend.credentials())
    with asking(clients, "asking whose credentials these are"):
        who = clients.client("sts").get_caller_identity()
    yield Check("account", True, f"{who['Account']}, {who['Arn']}")
    yield _concurrency(backend, workers)
    yield _deployment(backend, workers)


def _concurrency(backend: AwsBackend, workers: int) -> Check:
    with asking(backend.clients, "asking for the quota of Lambda"):
        limit = backend.clients.client("lambda").get_account_settings()["AccountLimit"]
    free = int(limit["UnreservedConcurrentExecutions"])
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
