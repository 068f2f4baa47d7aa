"""The account that builds the function, with roles for that alone.

Without one the service takes a default account of the project, which in new projects may do nothing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions

from backends.gcp.deploy.access import Policy, add, change, find_account, holders, make_account, remove_account
from backends.gcp.deployment import Deployment

if TYPE_CHECKING:
    from backends.gcp.deploy.rest import Rest

__all__ = ["ROLES", "commands", "lacking_roles", "make_builder", "remove_builder"]

# On the project, since what they are for is made by the service: as Google names them for an account of one's own.
ROLES = ("roles/logging.logWriter", "roles/artifactregistry.writer", "roles/storage.objectViewer")


def _policy(rest: Rest, project: str) -> Policy:
    return Policy(rest, f"https://cloudresourcemanager.googleapis.com/v1/projects/{project}", read_by_post=True)


def make_builder(rest: Rest, deployment: Deployment) -> str:
    """Make the account and give it the roles; a line for the user if that is not allowed, and then there is none."""
    email = deployment.build_account
    make_account(rest, deployment, email, "builds")
    try:
        change(_policy(rest, deployment.project), lambda policy: _add_all(policy, email), email)
    except exceptions.Forbidden:
        remove_account(rest, deployment, email)
        return (
            "whoever deploys may not give roles on the project, so its default account builds the function; if that "
            f"fails, have an owner make an account with {', '.join(ROLES)}, and name it in build_account"
        )
    return ""


def _add_all(policy: dict[str, Any], email: str) -> bool:
    added = [add(policy, role, [f"serviceAccount:{email}"]) for role in ROLES]
    return any(added)


def remove_builder(rest: Rest, deployment: Deployment) -> bool:
    """Take the roles from the account and remove it; False if there is none."""
    email = deployment.build_account
    if not find_account(rest, deployment, email):
        return False
    # Whoever may not change the project's policy leaves there the roles of an account that is gone, which do nothing.
    with suppress(exceptions.Forbidden):
        change(_policy(rest, deployment.project), lambda policy: _drop(policy, f"serviceAccount:{email}"), email)
    return remove_account(rest, deployment, email)


def _drop(policy: dict[str, Any], member: str) -> bool:
    held = [item for item in policy.get("bindings", []) if member in item.get("members", [])]
    for item in held:
        item["members"] = [other for other in item["members"] if other != member]
    policy["bindings"] = [item for item in policy.get("bindings", []) if item.get("members")]
    return bool(held)


def lacking_roles(rest: Rest, project: str, email: str) -> list[str] | None:
    """Which of the roles an account lacks on the project; None if that cannot be seen."""
    try:
        policy = _policy(rest, project).read()
    except exceptions.Forbidden:
        return None
    return [role for role in ROLES if f"serviceAccount:{email}" not in holders(policy, role)]


def commands(project: str, email: str, roles: list[str]) -> str:
    """What an owner runs to give the roles."""
    given = f"gcloud projects add-iam-policy-binding {project} --member serviceAccount:{email} --role"
    return "; ".join(f"{given} {role}" for role in roles)
