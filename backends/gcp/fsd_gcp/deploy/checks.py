"""What `fsd doctor gcp` looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import requests
from google.api_core.exceptions import Forbidden, GoogleAPIError
from google.auth.exceptions import GoogleAuthError

from fsd_gcp.calls.clients import Clients
from fsd_gcp.calls.errors import ProjectDeniedError, is_disabled, one_line, translated
from fsd_gcp.deploy.access import claim_on_account, is_gone, whose
from fsd_gcp.deploy.claims import BUILDS, Claim
from fsd_gcp.deploy.function import find_function
from fsd_gcp.deploy.project import commands, disabled_apis, enabling, lacking_roles, room
from fsd_gcp.deploy.provisioner import GcpProvisioner
from fsd_gcp.deployment import Deployment, function_name
from fsd_gcp.settings import GcpSettings
from fsdcore.contracts.backend import Check, DeploymentStatus
from fsdcore.errors import ConfigError, DeploymentMissingError
from fsdcore.record.observer import Observer


def checks(clients: Clients, settings: GcpSettings, workers: int, observer: Observer) -> Iterator[Check]:
    """Credentials, the project and its services, quotas for `workers`, and the deployment, in that order."""
    yield Check("credentials", True, whose(clients, settings))
    apis = _apis(clients, settings)
    yield Check("project", True, clients.project)
    yield apis
    if not apis.ok:
        return
    if not settings.region:
        raise ConfigError("no region: set FSD_GCP_REGION or region in the table [gcp] of the configuration")
    yield _instances(clients, settings, workers)
    yield _builder(clients, settings)
    yield _deployment(GcpProvisioner(clients, settings, observer).status, settings.name, workers)


def _apis(clients: Clients, settings: GcpSettings) -> Check:
    project = clients.project
    try:
        missing = disabled_apis(clients.rest, project)
    except ProjectDeniedError as error:
        # Of a project that there is, who only runs may see the function and no more.
        if not _sees_function(clients, settings):
            raise
        return Check("services", True, f"not known: {one_line(error.__cause__ or error)}")
    detail = f"not enabled: {', '.join(missing)}" if missing else "all that are needed are enabled"
    return Check("services", not missing, detail, f"run: {enabling(missing, project)}")


def _sees_function(clients: Clients, settings: GcpSettings) -> bool:
    if not settings.region:
        return False
    name = function_name(settings.name, clients.project, settings.region)
    with suppress(GoogleAPIError, GoogleAuthError, requests.RequestException):
        return find_function(clients.functions, name) is not None
    return False


def _instances(clients: Clients, settings: GcpSettings, workers: int) -> Check:
    """Quotas that cannot be seen are no fault: they are told of, and passed over."""
    deployment = Deployment.of(settings, project=clients.project, workers=workers)
    with translated("looking at quotas"):
        found = room(clients.rest, deployment)
    if found.instances is None:
        return Check("instances", True, f"not known how many the quotas allow: {found.quota}")
    wanted = workers * deployment.lanes
    detail = f"{found.instances:,} of {deployment.memory_mb:,} MB by {found.quota}, {wanted:,} wanted"
    remedy = "ask for more in the console, at IAM & Admin, Quotas; or take fewer workers"
    return Check("instances", found.instances >= wanted, detail, remedy)


def _builder(clients: Clients, settings: GcpSettings) -> Check:
    """Whether the account that builds the function may; one that a deploy will make is no fault."""
    brought = settings.build_account
    deployment = Deployment.of(settings, project=clients.project, workers=1)
    with translated("looking at the account that builds"):
        try:
            return _brought(clients, brought) if brought else _own(clients, deployment)
        except Forbidden as error:
            if is_disabled(error):
                raise
            return Check("builder", True, f"not known: {one_line(error)}")


def _brought(clients: Clients, email: str) -> Check:
    if is_gone(clients.rest, email):
        return Check("builder", False, f"{email} does not exist", "correct build_account")
    return _roles(clients, email)


def _own(clients: Clients, deployment: Deployment) -> Check:
    email = deployment.build_account
    found = claim_on_account(clients.rest, deployment, email, BUILDS)
    if found is None:
        return Check("builder", True, "made by the first deploy")
    return Check("builder", False, str(found), found.remedy) if isinstance(found, Claim) else _roles(clients, email)


def _roles(clients: Clients, email: str) -> Check:
    project = clients.project
    lacking = lacking_roles(clients.rest, project, email)
    if lacking is None:
        return Check("builder", True, f"not known what {email} may do: policies of the project cannot be seen")
    detail = f"{email} lacks {', '.join(lacking)}" if lacking else email
    return Check("builder", not lacking, detail, f"run: {commands(project, email, lacking)}")


def _deployment(status: Callable[[], DeploymentStatus], name: str, workers: int) -> Check:
    try:
        found = status()
    except DeploymentMissingError as error:
        return Check("deployment", False, error.message)
    if not found.ready:
        return Check("deployment", False, f"{name}: {found.problem}")
    remedy = f"run: fsd deploy gcp --name {name} --max-workers {workers}"
    return Check("deployment", found.workers >= workers, f"{name}, for up to {found.workers} workers", remedy)
