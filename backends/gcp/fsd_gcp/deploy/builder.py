"""The account that builds the function, with roles for that alone.

Without one the service takes a default account of the project, which in new projects may do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from google.api_core import exceptions

from fsd_gcp.deploy.access import Policy, add, change, find_account, holders, make_account, remove_account
from fsd_gcp.deploy.claims import BUILDS
from fsd_gcp.deploy.settling import Settling
from fsd_gcp.deployment import Deployment
from fsd_gcp.errors import is_disabled

if TYPE_CHECKING:
    from fsd_gcp.rest import Rest

__all__ = ["ROLES", "Builder", "brought_builder", "commands", "lacking_roles", "make_builder", "remove_builder"]

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
