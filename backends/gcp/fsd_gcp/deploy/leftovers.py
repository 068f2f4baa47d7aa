"""What Google keeps of a function that it built: removed where it is of this deployment alone, and else told of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from google.api_core import exceptions

from fsd_gcp.deployment import Deployment

if TYPE_CHECKING:
    from google.cloud import storage

    from fsd_gcp.rest import Rest

__all__ = ["image", "remove_image", "remove_sources", "shared"]

_TIMEOUT = 60.0
# The repository and the buckets that all functions of a region share; names of buckets go on with the project's number.
_REPOSITORY, _SOURCES, _UPLOADS = "gcf-artifacts", "gcf-v2-sources-", "gcf-v2-uploads-"


def _repository(deployment: Deployment) -> str:
    return f"https://artifactregistry.googleapis.com/v1/{deployment.parent}/repositories/{_REPOSITORY}"


def image(deployment: Deployment) -> str:
    """The name of a function's image: the parts of the function's own, each hyphen twice."""
    parts = (deployment.project, deployment.region, deployment.stem)
    return "__".join(part.replace("-", "--") for part in parts)


def remove_image(rest: Rest, deployment: Deployment) -> bool:
    """Remove the image with all its versions, of which each change of the function left one; False if there is none."""
    try:
        rest.delete(f"{_repository(deployment)}/packages/{quote(image(deployment), safe='')}")
    except exceptions.NotFound:
        return False
    return True


def _buckets(client: storage.Client, deployment: Deployment, prefix: str) -> Iterator[storage.Bucket]:
    for bucket in client.list_buckets(prefix=prefix, timeout=_TIMEOUT):
        if bucket.name.startswith(prefix) and bucket.name.endswith(f"-{deployment.region}"):
            yield bucket


def remove_sources(client: storage.Client, deployment: Deployment) -> int:
    """Remove what was kept of the function's sources; how many objects."""
    removed = 0
    for bucket in _buckets(client, deployment, _SOURCES):
        blobs = list(client.list_blobs(bucket, prefix=f"{deployment.stem}/", versions=True, timeout=_TIMEOUT))
        bucket.delete_blobs(blobs, on_error=lambda _: None, preserve_generation=True, timeout=_TIMEOUT)
        removed += len(blobs)
    return removed


def shared(client: storage.Client, rest: Rest, deployment: Deployment) -> list[str]:
    """What stays, since other functions may use it."""
    found = [f"bucket {bucket.name}" for kind in (_SOURCES, _UPLOADS) for bucket in _buckets(client, deployment, kind)]
    with suppress(exceptions.NotFound, exceptions.Forbidden):
        rest.get(_repository(deployment))
        found.append(f"repository {_REPOSITORY} in {deployment.region}")
    return found
