"""``fsd deploy gcp``, ``fsd status gcp``, ``fsd destroy gcp``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
import requests
from google.api_core.exceptions import Forbidden, GoogleAPICallError
from google.auth.exceptions import GoogleAuthError

from backends.gcp.clients import Clients
from backends.gcp.deploy.access import GRANTS, find_account, give, identity, lacking, make_account, remove_account
from backends.gcp.deploy.bucket import make_bucket, remove_bucket
from backends.gcp.deploy.builder import ROLES, make_builder, remove_builder
from backends.gcp.deploy.function import find_function, function_of, make_function, remove_function
from backends.gcp.deploy.leftovers import remove_image, remove_sources, shared
from backends.gcp.deploy.messaging import find_queues, make_queues, remove_queues, subscription_of
from backends.gcp.deploy.package import source_package
from backends.gcp.deploy.project import require
from backends.gcp.deploy.working import await_working
from backends.gcp.deployment import VARIABLE, Deployment
from backends.gcp.errors import one_line, project_checked, translated
from backends.gcp.identity import IdentityTokens
from backends.gcp.settings import GcpSettings
from fsdcore.backend import DeploymentStatus, Provisioner, Removal
from fsdcore.errors import ConfigError

if TYPE_CHECKING:
    from google.cloud.functions_v2 import Function

    from backends.gcp.backend import GcpBackend

__all__ = ["GcpProvisioner"]

_Found = TypeVar("_Found")
_Queues: TypeAlias = tuple[list[str], list[str]]


class GcpProvisioner(Provisioner):
    """Makes the resources of a deployment, in an order in which the function, which tells of the others, is last.

    The names of all resources follow from project, region and the deployment's name, so nothing need be remembered
    between calls.
    """

    def __init__(self, backend: GcpBackend) -> None:
        self._backend = backend
        self._settings: GcpSettings = backend.settings
        self._clients: Clients = backend.clients
        self._own = ""

    def _here(self, workers: int) -> Deployment:
        """What the settings describe, in the project of settings or credentials."""
        if not self._settings.region:
            raise ConfigError("no region: set FSD_GCP_REGION or region in the table [gcp] of the configuration")
        return Deployment.of(self._settings, project=self._clients.project, workers=workers)

    def describe(self, workers: int) -> str:
        region = self._settings.region or "REGION"
        settings = self._settings
        known = Deployment.of(settings, project=settings.project or "PROJECT", workers=workers)
        deployment = msgspec.structs.replace(known, region=region)
        described = {
            "function": _plain(function_of(deployment, "DIGEST", settings.build_account or deployment.build_account)),
            "bucket": {"name": deployment.bucket, "location": region, "runs deleted after days": settings.run_days},
            "topics": [deployment.topic(*endpoint) for endpoint in deployment.endpoints()],
            "subscriptions": [_plain(subscription_of(deployment, *endpoint)) for endpoint in deployment.endpoints()],
            "service account": deployment.service_account,
            "account that builds": settings.build_account or deployment.build_account,
            "its roles on the project": list(ROLES),
            "callers": ["who deploys", *settings.members],
            "roles": [dataclasses.asdict(grant) for grant in GRANTS],
        }
        return json.dumps(described, indent=2)

    def deploy(self, workers: int) -> DeploymentStatus:
        deployment, observer = self._here(workers), self._backend.observer
        with translated("looking at the project"):
            room = require(self._clients.rest, deployment)
        package = source_package(deployment, observer)
        with translated(f"making the service account {deployment.service_account}"):
            callers = self._callers()
            make_account(self._clients.rest, deployment)
        builder, notes = self._builder(deployment)
        notes += [room] if room else []
        with translated(f"making the bucket {deployment.bucket}"):
            make_bucket(self._clients.storage, deployment)
        total = len(deployment.endpoints())
        with translated("making topics and subscriptions"):
            make_queues(self._clients, deployment, lambda done: observer.progress("topics", done, total))
        self._give(deployment, callers, function=False)
        with translated(f"deploying the function {deployment.stem}"):
            make_function(self._clients.functions, deployment, package, observer, builder)
        # Last of all, so that a deployment which has it has everything.
        self._give(deployment, callers, function=True)
        with translated("removing topics and subscriptions that are not needed any more"):
            self._remove_surplus(deployment)
        tokens = IdentityTokens(deployment.url, deployment.service_account, lambda: self._clients.credentials)
        # Of callers that are named, any may be who deploys if that cannot be told.
        named = bool(callers)
        notes += await_working(deployment, tokens.token, self._own in callers, observer, may_be_caller=named)
        status = self.status()
        size = f"source {package.zipped_bytes / 1e6:.1f} MB zipped, {package.unzipped_bytes / 1e6:.1f} MB unzipped"
        lines = (*status.resources, *self._who(callers), size, *notes, *package.notices)
        return dataclasses.replace(status, resources=lines)

    def _builder(self, deployment: Deployment) -> tuple[str, list[str]]:
        """The account that builds, if it is not to be the project's own, and what to tell."""
        if self._settings.build_account:
            return self._settings.build_account, []
        with translated(f"making the account {deployment.build_account}, which builds the function"):
            note = make_builder(self._clients.rest, deployment)
        return ("", [note]) if note else (deployment.build_account, [])

    def _callers(self) -> list[str]:
        """Who deploys, if that can be told, and whom the settings name."""
        with suppress(GoogleAPICallError, GoogleAuthError, requests.RequestException):
            self._own = identity(self._clients.credentials, self._clients.rest)
        return list(dict.fromkeys([*([self._own] if self._own else []), *self._settings.members]))

    def _give(self, deployment: Deployment, callers: list[str], function: bool) -> None:
        """The roles on the function, or on all else."""
        observer, rest = self._backend.observer, self._clients.rest
        with translated("giving roles"):
            give(rest, deployment, callers, function, lambda done, total: observer.progress("roles", done, total))

    def _who(self, callers: list[str]) -> list[str]:
        """A line that tells who may run."""
        if callers:
            return [f"callers: {', '.join(callers)}"]
        unknown = "callers: the credentials do not say whose they are; name yourself in the setting callers"
        return [] if self._settings.emulated else [unknown]

    def _remove_surplus(self, deployment: Deployment) -> None:
        wanted = {deployment.topic(*endpoint) for endpoint in deployment.endpoints()}
        wanted |= {deployment.subscription(*endpoint) for endpoint in deployment.endpoints()}
        topics, subscriptions = find_queues(self._clients, deployment.project, deployment.name)
        surplus = [name for name in topics if name not in wanted]
        remove_queues(self._clients, surplus, [name for name in subscriptions if name not in wanted])

    def status(self) -> DeploymentStatus:
        here, rest = self._here(1), self._clients.rest
        with project_checked(f"looking at deployment {here.name!r}", here.project):
            function = find_function(self._clients.functions, here.function)
            unseen: list[str] = []
            # Who only runs may not look at these.
            bucket = _seen(lambda: self._clients.storage.lookup_bucket(here.bucket) is not None, unseen)
            queues = _seen(lambda: find_queues(self._clients, here.project, here.name), unseen)
            account = _seen(lambda: find_account(rest, here), unseen)
            deployment = _told(function)
            problem = _problem(function, deployment, bucket, queues)
            if deployment is not None and not problem:
                problem = _unable(deployment, account, lacking(rest, deployment))
        lines = []
        if function is not None:
            lines.append(f"function {here.stem}: {function.state.name.lower()}, {_about(deployment)}")
        if bucket:
            lines.append(f"bucket {here.bucket}")
        if queues and any(queues):
            lines.append(f"{len(queues[0])} topics, {len(queues[1])} subscriptions")
        if account:
            lines.append(f"service account {here.service_account}")
        if not lines:
            problem = f"none in {here.region} of project {here.project}"
        lines += [f"not seen: {why}" for why in unseen]
        command = f"run: fsd deploy gcp --name {here.name}"
        workers = deployment.workers if deployment is not None else 0
        return DeploymentStatus(
            here.name, not problem, workers, tuple(lines), f"{problem}; {command}" if problem else ""
        )

    def destroy(self) -> Removal:
        here, observer = self._here(1), self._backend.observer
        removed = []
        with translated(f"removing the function {here.stem}"):
            if remove_function(self._clients.functions, here.function, observer):
                removed.append(f"function {here.stem}")
        with translated("removing what its builds left"):
            if remove_image(self._clients.rest, here):
                removed.append(f"image of {here.stem}")
            if sources := remove_sources(self._clients.storage, here):
                removed.append(f"{sources:,} {'source' if sources == 1 else 'sources'} of {here.stem}")
            stays = shared(self._clients.storage, self._clients.rest, here)
        with translated("removing topics and subscriptions"):
            topics, subscriptions = find_queues(self._clients, here.project, here.name)
            remove_queues(self._clients, topics, subscriptions)
        if topics or subscriptions:
            removed.append(f"{len(topics)} topics, {len(subscriptions)} subscriptions")
        with translated(f"removing the bucket {here.bucket}"):
            objects = remove_bucket(self._clients.storage, here.bucket)
        if objects is not None:
            removed.append(f"bucket {here.bucket} with {objects:,} {'object' if objects == 1 else 'objects'}")
        with translated(f"removing the service account {here.build_account}"):
            if remove_builder(self._clients.rest, here):
                removed.append(f"service account {here.build_account}")
        # Last: the roles that it had are gone with what they were on.
        with translated(f"removing the service account {here.service_account}"):
            if remove_account(self._clients.rest, here):
                removed.append(f"service account {here.service_account}")
        return Removal(tuple(removed), shared=tuple(stays))


def _plain(message: Any) -> Any:
    return type(message).to_dict(message, use_integers_for_enums=False, always_print_fields_with_no_presence=False)


def _told(function: Function | None) -> Deployment | None:
    """The deployment that its function tells of; None if another release made it."""
    return (
        Deployment.told(function.service_config.environment_variables.get(VARIABLE)) if function is not None else None
    )


def _about(deployment: Deployment | None) -> str:
    if deployment is None:
        return "made by another release"
    return f"Python {deployment.python}, {deployment.memory_mb:,} MB, {deployment.timeout_seconds} s"


def _seen(look: Callable[[], _Found], unseen: list[str]) -> _Found | None:
    """What a look finds; None, and why, where these credentials may not look."""
    try:
        return look()
    except Forbidden as error:
        unseen.append(one_line(error))
        return None


def _problem(
    function: Function | None, deployment: Deployment | None, bucket: bool | None, queues: _Queues | None
) -> str:
    """Why the deployment cannot be used; empty if it can, as far as it was seen."""
    if function is None:
        return "it was not made to its end: there is no function"
    if function.state.name != "ACTIVE":
        return f"the function is {function.state.name.lower()}"
    if deployment is None:
        return "it was made by another release"
    if bucket is False:
        return f"the bucket {deployment.bucket} is missing"
    if queues is None:
        return ""
    endpoints = deployment.endpoints()
    missing = {deployment.topic(*endpoint) for endpoint in endpoints} - set(queues[0])
    missing |= {deployment.subscription(*endpoint) for endpoint in endpoints} - set(queues[1])
    return f"{len(missing)} topics and subscriptions are missing" if missing else ""


def _unable(deployment: Deployment, account: bool | None, roles: list[str]) -> str:
    """Why workers cannot do what they must; empty if they can, as far as it shows."""
    if account is False:
        return f"the service account {deployment.service_account} is missing"
    return f"the service account lacks {', '.join(roles)}" if roles else ""
