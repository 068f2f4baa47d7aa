"""What there is of a deployment, and what only bears its names: looked at before anything is made or removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from google.api_core.exceptions import Forbidden
from google.cloud.functions_v2 import Function

from fsd_gcp.calls.errors import is_disabled, one_line
from fsd_gcp.deploy.access import claim_on_account
from fsd_gcp.deploy.claims import BUILDS, Claim
from fsd_gcp.deploy.function import claim_on_function
from fsd_gcp.deploy.resources import Queues, claim_on_queues, find_bucket, find_queues

if TYPE_CHECKING:
    from fsd_gcp.calls.clients import Clients
    from fsd_gcp.deployment import Deployment

_Found = TypeVar("_Found")


@dataclass
class Inventory:
    """The function if it is the deployment's own, and whether there is each of the rest: None if it was not seen.

    `claims` are on what bears a name of the deployment and is not its own, `strange` says of what.
    """

    function: Function | None = None
    bucket: bool | None = False
    queues: Queues | None = None
    account: bool | None = False
    claims: list[Claim] = field(default_factory=list)
    strange: set[str] = field(default_factory=set)
    unseen: list[str] = field(default_factory=list)

    def own(self, kind: str, found: _Found | Claim | None) -> _Found | None:
        """What was found of a kind, if it is the deployment's own; else the claim is kept."""
        if not isinstance(found, Claim):
            return found
        self.claims.append(found)
        self.strange.add(kind)
        return None

    def require_own(self) -> None:
        """`ConfigError` if anything is not the deployment's own."""
        if self.claims:
            raise self.claims[0].refusal()

    def require_here(self) -> None:
        """`ConfigError` if anything is of the deployment of this name in another region."""
        for claim in self.claims:
            if claim.region:
                raise claim.refusal()


def look(clients: Clients, deployment: Deployment, strictly: bool = True) -> Inventory:
    """What there is; not `strictly`, what may be looked at, and why the rest may not.

    Errors are those of ``google.api_core``.
    """
    found = Inventory()

    def seen(look_at: Callable[[], _Found]) -> _Found | None:
        try:
            return look_at()
        except Forbidden as error:
            if strictly or is_disabled(error):
                raise
            found.unseen.append(one_line(error))
            return None

    found.function = found.own("function", claim_on_function(clients.functions, deployment))
    found.bucket = seen(lambda: found.own("bucket", find_bucket(clients.storage, deployment)) is not None)
    found.queues = seen(lambda: _queues(clients, deployment, found))
    found.account = seen(lambda: found.own("account", claim_on_account(clients.rest, deployment)) is not None)
    if strictly:
        found.own("builder", claim_on_account(clients.rest, deployment, deployment.build_account, BUILDS))
    return found


def _queues(clients: Clients, deployment: Deployment, found: Inventory) -> Queues:
    found.own("queues", claim_on_queues(clients, deployment))
    return find_queues(clients, deployment.project, deployment.name, deployment.region)
