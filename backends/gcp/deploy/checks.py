"""What `fsd doctor gcp` looks at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backends.gcp.deploy.access import find_account
from backends.gcp.deploy.builder import commands, lacking_roles
from backends.gcp.deploy.project import disabled_apis, enabling, room
from backends.gcp.deployment import Deployment
from backends.gcp.errors import translated
from fsdcore.backend import Check
from fsdcore.errors import ConfigError, DeploymentMissingError

if TYPE_CHECKING:
    from backends.gcp.backend import GcpBackend

__all__ = ["checks"]


def checks(backend: GcpBackend, workers: int) -> Iterator[Check]:
    """Credentials, the project and its services, quotas for `workers`, and the deployment, in that order."""
    yield Check("credentials", True, backend.credentials())
    apis = _apis(backend)
    yield Check("project", True, backend.clients.project)
    yield apis
    if not apis.ok:
        return
    if not backend.settings.region:
        raise ConfigError("no region: set FSD_GCP_REGION or region in the table [gcp] of the configuration")
    yield _instances(backend, workers)
    yield _builder(backend)
    yield _deployment(backend, workers)


def _apis(backend: GcpBackend) -> Check:
    project = backend.clients.project
    missing = disabled_apis(backend.clients.rest, project)
    detail = f"not enabled: {', '.join(missing)}" if missing else "all that are needed are enabled"
    return Check("services", not missing, detail, f"run: {enabling(missing, project)}")


def _instances(backend: GcpBackend, workers: int) -> Check:
    """Quotas that cannot be seen are no fault: they are told of, and passed over."""
    deployment = Deployment.of(backend.settings, project=backend.clients.project, workers=workers)
    with translated("looking at quotas"):
        found = room(backend.clients.rest, deployment)
    if found.instances is None:
        return Check("instances", True, f"not known how many the quotas allow: {found.quota}")
    wanted = workers * deployment.lanes
    detail = f"{found.instances:,} of {deployment.memory_mb:,} MB by {found.quota}, {wanted:,} wanted"
    remedy = "ask for more in the console, at IAM & Admin, Quotas; or take fewer workers"
    return Check("instances", found.instances >= wanted, detail, remedy)


def _builder(backend: GcpBackend) -> Check:
    """Whether the account that builds the function may; one that a deploy will make is no fault."""
    rest, brought = backend.clients.rest, backend.settings.build_account
    deployment = Deployment.of(backend.settings, project=backend.clients.project, workers=1)
    email = brought or deployment.build_account
    with translated("looking at the account that builds"):
        if not brought and not find_account(rest, deployment, email):
            return Check("builder", True, "made by the first deploy")
        lacking = lacking_roles(rest, deployment.project, email)
    if lacking is None:
        return Check("builder", True, f"not known what {email} may do: policies of the project cannot be seen")
    detail = f"{email} lacks {', '.join(lacking)}" if lacking else email
    return Check("builder", not lacking, detail, f"run: {commands(deployment.project, email, lacking)}")


def _deployment(backend: GcpBackend, workers: int) -> Check:
    name = backend.settings.name
    try:
        found = backend.provisioner().status()
    except DeploymentMissingError as error:
        return Check("deployment", False, error.message)
    if not found.ready:
        return Check("deployment", False, f"{name}: {found.problem}")
    remedy = f"run: fsd deploy gcp --name {name} --max-workers {workers}"
    return Check("deployment", found.workers >= workers, f"{name}, for up to {found.workers} workers", remedy)
