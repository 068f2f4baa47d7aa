"""``fsd deploy gcp``, ``fsd status gcp``, ``fsd destroy gcp``."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import msgspec
import requests
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.oauth2.credentials import Credentials as UserCredentials

from fsd_gcp.calls.clients import Clients
from fsd_gcp.calls.errors import one_line, project_checked, translated
from fsd_gcp.calls.identity import IdentityTokens
from fsd_gcp.deploy.access import GRANTS, give, identity, is_gone, lacking, make_account, whose
from fsd_gcp.deploy.function import function_of, make_function
from fsd_gcp.deploy.inventory import Inventory, look
from fsd_gcp.deploy.package import source_package
from fsd_gcp.deploy.project import ROLES, Builder, brought_builder, make_builder, require
from fsd_gcp.deploy.removal import remove_all
from fsd_gcp.deploy.resources import Queues, find_queues, make_bucket, make_queues, remove_queues, subscription_of
from fsd_gcp.deploy.settling import Notes, Settling
from fsd_gcp.deploy.working import await_working
from fsd_gcp.deployment import VARIABLE, Deployment
from fsd_gcp.settings import GcpSettings
from fsdcore.contracts.backend import DeploymentStatus, Provisioner, Removal
from fsdcore.errors import AccessDeniedError, ConfigError, CredentialsError
from fsdcore.record.observer import Observer

if TYPE_CHECKING:
    from google.cloud.functions_v2 import Function

    from fsdcore.deploy import Package


class GcpProvisioner(Provisioner):
    """Makes the resources of a deployment, in an order in which the function, which tells of the others, is last.

    The names of all resources follow from project, region and the deployment's name, so nothing need be remembered
    between calls.
    """

    def __init__(self, clients: Clients, settings: GcpSettings, observer: Observer) -> None:
        self._clients, self._settings, self.observer = clients, settings, observer
        self._own = ""

    def _here(self, workers: int) -> Deployment:
        """What the settings describe, in the project of settings or credentials."""
        if not self._settings.region:
            raise ConfigError("no region: set FSD_GCP_REGION or region in the table [gcp] of the configuration")
        return Deployment.of(self._settings, project=self._clients.project, workers=workers)

    def describe(self, workers: int) -> str:
        """Function, bucket, topics, subscriptions, accounts and roles as JSON; ``PROJECT`` where none is set."""
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
        """Makes accounts, bucket, topics and roles, then the function, and waits until it works.

        `ConfigError` before anything is made if a resource of these names belongs to something else.
        """
        deployment, notes = self._here(workers), Notes(self.observer)
        with translated("looking at the project"):
            notes.add(require(self._clients.rest, deployment))
        there = self._look(deployment)
        there.require_own()
        self._require_accounts()
        callers = self._callers(notes)
        package = source_package(deployment, self.observer)
        notes.add(*package.notices)
        self._make(deployment, package, callers, there.function is None, notes)
        found = self._found()
        size = f"source {package.zipped_bytes / 1e6:.1f} MB zipped, {package.unzipped_bytes / 1e6:.1f} MB unzipped"
        return dataclasses.replace(found, resources=(*found.resources, *self._who(callers), size, *notes.told))

    def _look(self, deployment: Deployment) -> Inventory:
        with translated(f"looking at what there is of {deployment.stem}"):
            return look(self._clients, deployment)

    def _require_accounts(self) -> None:
        """`ConfigError` for a service account of the settings that there is not, as far as that can be known."""
        given = [("build_account", self._settings.build_account)]
        accounts = (member for member in self._settings.members if member.startswith("serviceAccount:"))
        given += [("callers", member.partition(":")[2]) for member in accounts]
        for setting, email in given:
            with translated(f"looking for {email}"):
                if is_gone(self._clients.rest, email):
                    raise ConfigError(f"{setting}: the service account {email} does not exist")

    def _make(self, deployment: Deployment, package: Package, callers: list[str], is_new: bool, notes: Notes) -> None:
        """All that is missing, in order, until it works."""
        observer, clients = self.observer, self._clients
        settling = Settling(deployment.service_account, deployment.build_account, observer=observer)
        with translated(f"making the service account {deployment.service_account}"):
            # An earlier call that was stopped may have made it just before.
            if make_account(clients.rest, deployment) or is_new:
                settling.began()
        builder = self._builder(deployment, settling)
        notes.add(builder.note)
        with translated(f"making the bucket {deployment.bucket}"):
            make_bucket(clients.storage, deployment)
        total = len(deployment.endpoints())
        with translated("making topics and subscriptions"):
            make_queues(clients, deployment, lambda done: observer.progress("topics", done, total))
        self._give(deployment, callers, settling, function=False)
        with notes.kept():
            with translated(f"deploying the function {deployment.stem}"):
                make_function(clients.functions, deployment, package, observer, builder.email, settling)
            # Last of all, so that a deployment which has it has everything.
            self._give(deployment, callers, settling, function=True)
            with translated("removing topics and subscriptions that are not needed any more"):
                self._remove_surplus(deployment)
            tokens = IdentityTokens(deployment.url, deployment.service_account, lambda: clients.credentials)
            known, maybe = bool(self._own), self._may_run()
            notes.add(*await_working(deployment, tokens.token, known, observer, may_be_caller=maybe))

    def _builder(self, deployment: Deployment, settling: Settling) -> Builder:
        """The account that builds, if it is not to be the project's own, and what to tell."""
        rest, brought = self._clients.rest, self._settings.build_account
        if brought:
            with translated(f"looking at {brought}, which builds the function"):
                return brought_builder(rest, deployment.project, brought)
        with translated(f"making the account {deployment.build_account}, which builds the function"):
            return make_builder(rest, deployment, settling)

    def _callers(self, notes: Notes) -> list[str]:
        """Who deploys, if that can be told, and whom the settings name."""
        try:
            self._own = identity(self._clients.credentials, self._clients.rest)
        except (GoogleAPIError, GoogleAuthError, requests.RequestException) as error:
            notes.add(f"not found out who deploys: {one_line(error)}")
        return list(dict.fromkeys([*([self._own] if self._own else []), *self._settings.members]))

    def _may_run(self) -> bool:
        """Whether whoever deploys is a caller, or may be one of those that the settings name."""
        # An account of elsewhere does not say who it is; a person's login may not.
        person = isinstance(self._clients.credentials, UserCredentials)
        kinds = ("user:", "group:", "domain:") if person else ("principal", "serviceAccount:", "group:", "domain:")
        return bool(self._own) or any(member.startswith(kinds) for member in self._settings.members)

    def _give(self, deployment: Deployment, callers: list[str], settling: Settling, function: bool) -> None:
        """The roles on the function, or on all else."""
        rest, tell = self._clients.rest, self.observer.progress
        with translated("giving roles"):
            give(rest, deployment, callers, function, lambda done, total: tell("roles", done, total), settling)

    def _who(self, callers: list[str]) -> list[str]:
        """A line that tells who may run."""
        if callers:
            return [f"callers: {', '.join(callers)}"]
        unknown = "callers: the credentials do not say whose they are; name yourself in the setting callers"
        return [] if self._settings.emulated else [unknown]

    def _remove_surplus(self, deployment: Deployment) -> None:
        wanted = {deployment.topic(*endpoint) for endpoint in deployment.endpoints()}
        wanted |= {deployment.subscription(*endpoint) for endpoint in deployment.endpoints()}
        found = find_queues(self._clients, deployment.project, deployment.name, deployment.region)
        topics, subscriptions = ([name for name in names if name not in wanted] for names in found)
        remove_queues(self._clients, topics, subscriptions)

    def status(self) -> DeploymentStatus:
        """Looks at each resource; one that the caller may not see is named as not seen."""
        try:
            found = self._found()
        except AccessDeniedError as error:
            if not isinstance(error, CredentialsError):
                error.message += self._told_whose()
            raise
        if found.resources:
            return dataclasses.replace(
                found, resources=(*found.resources, f"credentials: {whose(self._clients, self._settings)}")
            )
        return dataclasses.replace(found, problem=f"{found.problem}{self._told_whose()}")

    def _told_whose(self) -> str:
        """What a refusal may be because of."""
        return "" if self._settings.emulated else f" (the credentials are of {whose(self._clients, self._settings)})"

    def _found(self) -> DeploymentStatus:
        """What there is, as far as whoever asks may see it."""
        here, rest = self._here(1), self._clients.rest
        with project_checked(f"looking at deployment {here.name!r}", here.project):
            there = look(self._clients, here, strictly=False)
            deployment = _told(there.function)
            problem = _problem(here, there, deployment)
            if deployment is not None and not problem:
                problem = _unable(deployment, there.account, lacking(rest, deployment))
        lines = _lines(here, there)
        command = f"run: fsd deploy gcp --name {here.name}"
        if not lines:
            problem = f"none in {here.region} of project {here.project}"
        if there.claims:
            problem, command = f"{problem}, and {there.claims[0]}", there.claims[0].remedy
        workers = deployment.workers if deployment is not None else 0
        return DeploymentStatus(
            here.name,
            not problem,
            workers,
            (*lines, *(f"not seen: {why}" for why in there.unseen)),
            f"{problem}; {command}" if problem else "",
        )

    def destroy(self) -> Removal:
        """Removes the function first, then the rest; leaves and names what is not its own or may not be removed.

        `ConfigError` if a resource belongs to the deployment of the same name in another region.
        """
        here = self._here(1)
        there = self._look(here)
        there.require_here()
        return remove_all(self._clients, here, there, self.observer)


def _lines(here: Deployment, there: Inventory) -> list[str]:
    """A line for each kind of resource that is there."""
    lines = []
    if there.function is not None:
        lines.append(f"function {here.stem}: {there.function.state.name.lower()}, {_about(_told(there.function))}")
    if there.bucket:
        lines.append(f"bucket {here.bucket}")
    if there.queues and any(there.queues):
        lines.append(f"{len(there.queues.topics)} topics, {len(there.queues.subscriptions)} subscriptions")
    if there.account:
        lines.append(f"service account {here.service_account}")
    return lines


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


def _problem(here: Deployment, there: Inventory, deployment: Deployment | None) -> str:
    """Why the deployment cannot be used; empty if it can, as far as it was seen."""
    if there.function is None:
        return "it was not made to its end: there is no function"
    if there.function.state.name != "ACTIVE":
        return f"the function is {there.function.state.name.lower()}"
    if deployment is None:
        return "it was made by another release"
    if there.bucket is False and "bucket" not in there.strange:
        return f"the bucket {here.bucket} is missing"
    return _missing(deployment, there.queues) if there.queues is not None else ""


def _missing(deployment: Deployment, queues: Queues) -> str:
    endpoints = deployment.endpoints()
    missing = {deployment.topic(*endpoint) for endpoint in endpoints} - set(queues.topics)
    missing |= {deployment.subscription(*endpoint) for endpoint in endpoints} - set(queues.subscriptions)
    return f"{len(missing)} topics and subscriptions are missing" if missing else ""


def _unable(deployment: Deployment, account: bool | None, roles: list[str]) -> str:
    """Why workers cannot do what they must; empty if they can, as far as it shows."""
    if account is False:
        return f"the service account {deployment.service_account} is missing"
    return f"the service account lacks {', '.join(roles)}" if roles else ""
