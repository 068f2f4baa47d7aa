"""What a deployment needs of its project: services that are enabled, and quotas for its instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from google.api_core import exceptions

from fsd_gcp.calls.errors import is_disabled, project_checked, translation
from fsd_gcp.deploy.access import Policy, add, change, find_account, holders, make_account, remove_account
from fsd_gcp.deploy.claims import BUILDS
from fsd_gcp.deploy.settling import Settling
from fsd_gcp.deployment import Deployment
from fsdcore.errors import ConfigError

if TYPE_CHECKING:
    from fsd_gcp.calls.rest import Rest

# All that a deploy or a run calls, and what Cloud Functions builds with.
APIS = tuple(
    f"{name}.googleapis.com"
    for name in (
        "cloudfunctions",
        "run",
        "cloudbuild",
        "artifactregistry",
        "pubsub",
        "storage",
        "iam",
        "iamcredentials",
        # In whose policy the account that builds has its roles.
        "cloudresourcemanager",
    )
)
# By memory, in MiB: the thousandths of a processor that a function gets unless it is told otherwise.
_CPU_OF_MEMORY = ((128, 83), (256, 167), (512, 333), (1_024, 583), (2_048, 1_000), (8_192, 2_000), (16_384, 4_000))
_MOST_CPU = 8_000
_CPU_QUOTA, _MEMORY_QUOTA = "CpuAllocPerProjectRegion", "MemAllocPerProjectRegion"
_MEBI = 1 << 20
_USUAL_CPU, _USUAL_MEMORY = 20_000, 40 << 30


class _Config(msgspec.Struct):
    name: str = ""


class _Service(msgspec.Struct):
    name: str
    state: str = ""
    config: _Config = msgspec.field(default_factory=_Config)


class _Services(msgspec.Struct):
    services: list[_Service] = msgspec.field(default_factory=list)


class _Limit(msgspec.Struct):
    value: int | Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,18}$")] = -1


class _Dimensions(msgspec.Struct):
    details: _Limit = msgspec.field(default_factory=_Limit)
    dimensions: dict[str, Any] = msgspec.field(default_factory=dict)
    applicableLocations: list[str] = msgspec.field(default_factory=list)  # noqa: N815 - of the service


class _Quota(msgspec.Struct):
    dimensionsInfos: list[_Dimensions] = msgspec.field(default_factory=list)  # noqa: N815 - of the service


class Room(NamedTuple):
    """How many instances the quotas allow, and the `quota` that decides it; None and why if they cannot be seen."""

    instances: int | None
    quota: str


def disabled_apis(rest: Rest, project: str) -> list[str]:
    """Which of `APIS` are not enabled; `ConfigError` for a project that there is not, or that cannot be seen."""
    parent = f"projects/{project}"
    names = [f"{parent}/services/{api}" for api in APIS]
    with project_checked(f"looking for project {project!r}", project):
        found = rest.get(f"https://serviceusage.googleapis.com/v1/{parent}/services:batchGet", _Services, names=names)
    enabled = {
        str(service.get("config", {}).get("name") or service["name"].rpartition("/")[2])
        for service in found.get("services", [])
        if service.get("state") == "ENABLED"
    }
    return [api for api in APIS if api not in enabled]


def enabling(apis: list[str], project: str) -> str:
    """The command that enables services."""
    return f"gcloud services enable {' '.join(apis)} --project {project}"


def room(rest: Rest, deployment: Deployment) -> Room:
    """What the quotas of Cloud Run, which functions are made of, allow in the region."""
    needs = {_CPU_QUOTA: _cpu(deployment), _MEMORY_QUOTA: deployment.memory_mb * _MEBI}
    try:
        limits = {quota: _limit(rest, deployment, quota) for quota in needs}
    except (exceptions.Forbidden, exceptions.NotFound) as error:
        return Room(None, translation(error, "Cloud Quotas").message)
    known = [(limit // needs[quota], quota) for quota, limit in limits.items() if limit is not None]
    return Room(*min(known)) if known else Room(None, f"no quota of Cloud Run is known for {deployment.region}")


def _cpu(deployment: Deployment) -> int:
    if deployment.cpu:
        return round(1_000 * float(deployment.cpu))
    return next((cpu for memory, cpu in _CPU_OF_MEMORY if deployment.memory_mb <= memory), _MOST_CPU)


def _limit(rest: Rest, deployment: Deployment, quota: str) -> int | None:
    """The value in the region; None if there is none, or no limit."""
    place = f"projects/{deployment.project}/locations/global/services/run.googleapis.com/quotaInfos/{quota}"
    for info in rest.get(f"https://cloudquotas.googleapis.com/v1/{place}", like=_Quota).get("dimensionsInfos", []):
        regions = [info.get("dimensions", {}).get("region"), *info.get("applicableLocations", [])]
        if deployment.region in regions:
            value = int(info.get("details", {}).get("value", -1))
            return value if value >= 0 else None
    return None


def require(rest: Rest, deployment: Deployment) -> str:
    """`ConfigError` if the project lacks a service, or a quota is known to be too small for the deployment.

    A line for the user if it is not known.
    """
    disabled = disabled_apis(rest, deployment.project)
    if disabled:
        which = f"API {disabled[0]} is" if len(disabled) == 1 else f"APIs {', '.join(disabled)} are"
        raise ConfigError(f"the {which} not enabled; run: {enabling(disabled, deployment.project)}")
    found, wanted = room(rest, deployment), deployment.workers * deployment.lanes
    if found.instances is None and wanted > (usual := _usual(deployment)):
        return (
            f"not known how many instances the quotas allow ({found.quota}); in a new project it is usually "
            f"{usual:,} of this size, and {wanted:,} may be wanted"
        )
    if found.instances is not None and found.instances < wanted:
        raise ConfigError(
            f"a quota of the project is too small: {found.quota} of Cloud Run in {deployment.region} allows "
            f"{found.instances:,} instances, {wanted:,} are wanted; ask for more in the console, or take fewer workers"
        )
    return ""


def _usual(deployment: Deployment) -> int:
    """How many instances the quotas of a new project allow, as is reported of such."""
    return min(_USUAL_CPU // _cpu(deployment), _USUAL_MEMORY // (deployment.memory_mb * _MEBI))


# On the project, since what they are for is made by the service: as Google names them for an account of one's own.
ROLES = ("roles/logging.logWriter", "roles/artifactregistry.writer", "roles/storage.objectViewer")


def _policy(rest: Rest, project: str) -> Policy:
    return Policy(rest, f"https://cloudresourcemanager.googleapis.com/v1/projects/{project}", read_by_post=True)


class Builder(NamedTuple):
    """The account that builds the function, empty for the project's default one, and a line for the user, if any."""

    email: str
    note: str = ""


def make_builder(rest: Rest, deployment: Deployment, settling: Settling) -> Builder:
    """Make the account and give it the roles. Where that is not allowed, one that was there already builds as it is."""
    email = deployment.build_account
    made = make_account(rest, deployment, email, BUILDS)
    if made:
        settling.began()
    try:
        if change(_policy(rest, deployment.project), lambda policy: _add_all(policy, email), settling):
            settling.began()
    except exceptions.Forbidden as error:
        if is_disabled(error):
            raise
        if made:
            remove_account(rest, deployment, email)
        return _unhelped(deployment, "" if made else email)
    return Builder(email)


def _unhelped(deployment: Deployment, email: str) -> Builder:
    """What builds where whoever deploys may not give roles on the project."""
    may_not = "whoever deploys may not give roles on the project, so"
    if email:
        remedy = f"have an owner run: {commands(deployment.project, email, list(ROLES))}"
        return Builder(
            email, f"{may_not} {email}, which is there, builds the function as it is; if that fails, {remedy}"
        )
    remedy = f"have an owner make an account with {', '.join(ROLES)}, and name it in build_account"
    return Builder("", f"{may_not} its default account builds the function; if that fails, {remedy}")


def brought_builder(rest: Rest, project: str, email: str) -> Builder:
    """One that the settings bring, and what it may lack: it may have other roles that do, or of a folder."""
    lacking = lacking_roles(rest, project, email)
    if not lacking:
        return Builder(email)
    what = f"{email}, which builds the function, is not given {', '.join(lacking)} on the project"
    return Builder(email, f"{what}; if the build fails, have an owner run: {commands(project, email, lacking)}")


def _add_all(policy: dict[str, Any], email: str) -> bool:
    added = [add(policy, role, [f"serviceAccount:{email}"]) for role in ROLES]
    return any(added)


def remove_builder(rest: Rest, deployment: Deployment) -> bool:
    """Take the roles from the account and remove it; False if there is none."""
    email = deployment.build_account
    if not find_account(rest, deployment, email):
        return False
    member = f"serviceAccount:{email}"
    try:
        change(_policy(rest, deployment.project), lambda policy: _drop(policy, member), Settling(email))
    except exceptions.Forbidden as error:
        if is_disabled(error):
            raise
        # Whoever may not change the policy leaves the roles of an account that is gone there, which do nothing.
    return remove_account(rest, deployment, email)


def _drop(policy: dict[str, Any], member: str) -> bool:
    held = [item for item in policy.get("bindings", []) if member in item.get("members", [])]
    for item in held:
        item["members"] = [other for other in item["members"] if other != member]
    policy["bindings"] = [item for item in policy.get("bindings", []) if item.get("members")]
    return bool(held)


def lacking_roles(rest: Rest, project: str, email: str) -> list[str] | None:
    """Which of the roles an account lacks on the project; None if that may not be seen."""
    try:
        policy = _policy(rest, project).read()
    except exceptions.Forbidden as error:
        if is_disabled(error):
            raise
        return None
    return [role for role in ROLES if f"serviceAccount:{email}" not in holders(policy, role)]


def commands(project: str, email: str, roles: list[str]) -> str:
    """What an owner runs to give the roles."""
    given = f"gcloud projects add-iam-policy-binding {project} --member serviceAccount:{email} --role"
    return "; ".join(f"{given} {role}" for role in roles)
