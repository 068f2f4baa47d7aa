"""What `fsd doctor gcp` looks at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import requests
from google.api_core.exceptions import Forbidden, GoogleAPIError
from google.auth.exceptions import GoogleAuthError

from backends.gcp.deploy.access import claim_on_account, identity, is_gone
from backends.gcp.deploy.builder import commands, lacking_roles
from backends.gcp.deploy.claims import BUILDS, Claim
from backends.gcp.deploy.function import find_function
from backends.gcp.deploy.project import disabled_apis, enabling, room
from backends.gcp.deployment import Deployment, function_name
from backends.gcp.errors import ProjectDeniedError, is_disabled, one_line, translated
from fsdcore.backend import Check
from fsdcore.errors import ConfigError, DeploymentMissingError

if TYPE_CHECKING:
    from backends.gcp.backend import GcpBackend

__all__ = ["checks", "whose"]


def checks(backend: GcpBackend, workers: int) -> Iterator[Check]:
    """Credentials, the project and its services, quotas for `workers`, and the deployment, in that order."""
    yield Check("credentials", True, whose(backend))
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


def whose(backend: GcpBackend) -> str:
    """Whose the credentials are, where that can be told."""
    if backend.settings.emulated:
        return backend.credentials()
    with suppress(GoogleAPIError, GoogleAuthError, requests.RequestException):
        if who := identity(backend.clients.credentials, backend.clients.rest):
            return f"{who}, project {backend.clients.project}"
    return backend.credentials()


def _apis(backend: GcpBackend) -> Check:
    project = backend.clients.project
    try:
        missing = disabled_apis(backend.clients.rest, project)
    except ProjectDeniedError as error:
        # Of a project that there is, who only runs may see the function and no more.
        if not _sees_function(backend):
            raise
        return Check("services", True, f"not known: {one_line(error.__cause__ or error)}")
    detail = f"not enabled: {', '.join(missing)}" if missing else "all that are needed are enabled"
    return Check("services", not missing, detail, f"run: {enabling(missing, project)}")


def _sees_function(backend: GcpBackend) -> bool:
    if not backend.settings.region:
        return False
    name = function_name(backend.settings.name, backend.clients.project, backend.settings.region)
    with suppress(GoogleAPIError, GoogleAuthError, requests.RequestException):
        return find_function(backend.clients.functions, name) is not None
    return False


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
    brought = backend.settings.build_account
    deployment = Deployment.of(backend.settings, project=backend.clients.project, workers=1)
    with translated("looking at the account that builds"):
        try:
            return _brought(backend, brought) if brought else _own(backend, deployment)
        except Forbidden as error:
            if is_disabled(error):
                raise
            return Check("builder", True, f"not known: {one_line(error)}")


def _brought(backend: GcpBackend, email: str) -> Check:
    if is_gone(backend.clients.rest, email):
        return Check("builder", False, f"{email} does not exist", "correct build_account")
    return _roles(backend, email)


def _own(backend: GcpBackend, deployment: Deployment) -> Check:
    email = deployment.build_account
    found = claim_on_account(backend.clients.rest, deployment, email, BUILDS)
    if found is None:
        return Check("builder", True, "made by the first deploy")
    return Check("builder", False, str(found), found.remedy) if isinstance(found, Claim) else _roles(backend, email)


def _roles(backend: GcpBackend, email: str) -> Check:
    project = backend.clients.project
    lacking = lacking_roles(backend.clients.rest, project, email)
    if lacking is None:
        return Check("builder", True, f"not known what {email} may do: policies of the project cannot be seen")
    detail = f"{email} lacks {', '.join(lacking)}" if lacking else email
    return Check("builder", not lacking, detail, f"run: {commands(project, email, lacking)}")


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
