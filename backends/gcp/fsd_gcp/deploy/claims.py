"""Whose a resource is that bears a name of a deployment: what is not its own is neither changed nor removed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fsd_gcp.deployment import LABEL, REGION_LABEL, Deployment
from fsdcore.errors import ConfigError

# What service accounts are for.
WORKERS, BUILDS = "workers", "builds"
_DESCRIBED = re.compile(r"(\w+) of fsd deployment (\S+?)(?: in (\S+))?")


@dataclass(frozen=True)
class Claim:
    """`what` bears a name of a deployment and is not its own: `why`, and what to do.

    `region` is where the deployment of the same name is that it belongs to, if it belongs to one.
    """

    what: str
    why: str
    remedy: str
    region: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.why}"

    def with_more(self, others: int) -> Claim:
        """The same for `others` besides."""
        return replace(self, what=f"{self.what}, as {others} more like it,") if others else self

    def refusal(self) -> ConfigError:
        """The error for a command that would have to change or remove the resource."""
        return ConfigError(f"{self}; {self.remedy}")


def elsewhere(deployment: Deployment, what: str, region: str) -> Claim:
    """That of a deployment of the same name in another region: all but functions is shared by regions."""
    return Claim(
        what,
        f"belongs to the deployment {deployment.name!r} in {region}, not {deployment.region}",
        f"set FSD_GCP_REGION={region}, or take another --name",
        region,
    )


def by_labels(deployment: Deployment, what: str, labels: Mapping[str, str]) -> Claim | None:
    """None for what is the deployment's own. Earlier releases have not labelled the region."""
    if labels.get(LABEL) != deployment.name:
        return _of_others(what, f"has no label {LABEL} = {deployment.name}")
    region = labels.get(REGION_LABEL, deployment.region)
    return elsewhere(deployment, what, region) if region != deployment.region else None


def description(deployment: Deployment, task: str) -> str:
    """What tells whose a service account is, which can have no labels: the one for `task`."""
    return f"{task} of fsd deployment {deployment.name} in {deployment.region}"


def by_description(deployment: Deployment, what: str, told: str, task: str) -> Claim | None:
    """As `by_labels`, for the service account for `task`."""
    found = _DESCRIBED.fullmatch(told)
    if found is None or (found[1], found[2]) != (task, deployment.name):
        return _of_others(what, f"is not described as {description(deployment, task)!r}")
    region = found[3] or deployment.region
    return elsewhere(deployment, what, region) if region != deployment.region else None


def _of_others(what: str, why: str) -> Claim:
    return Claim(what, f"{why}, so it was made for something else", "remove it, or take another --name")
