"""All that is a deployment's own is removed, and what is left is told, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from google.api_core import exceptions

from fsd_gcp.calls.errors import translated
from fsd_gcp.deploy.access import remove_account
from fsd_gcp.deploy.function import remove_function
from fsd_gcp.deploy.project import remove_builder
from fsd_gcp.deploy.resources import find_queues, remove_bucket, remove_queues
from fsd_gcp.deployment import Deployment
from fsdcore.contracts.backend import Removal
from fsdcore.errors import AccessDeniedError, ConfigError, CredentialsError

if TYPE_CHECKING:
    from google.cloud import storage

    from fsd_gcp.calls.clients import Clients
    from fsd_gcp.calls.rest import Rest
    from fsd_gcp.deploy.inventory import Inventory
    from fsdcore.record.observer import Observer


def remove_all(clients: Clients, here: Deployment, there: Inventory, observer: Observer) -> Removal:
    """Remove what is there, but for what it has found to be another's.

    What may not be removed is left, and the rest goes; without permission on the function nothing is touched.
    """
    made = _Removing(clients, here, there)
    if "function" not in there.strange:
        with translated(f"removing the function {here.stem}"):
            made.note(remove_function(clients.functions, here.function, observer), f"function {here.stem}")
        made.leftovers()
    made.queues()
    made.bucket()
    made.accounts()
    return Removal(tuple(made.removed), tuple(made.left), tuple(made.shared))


class _Removing:
    def __init__(self, clients: Clients, here: Deployment, there: Inventory) -> None:
        self._clients, self._here, self._there = clients, here, there
        self.removed: list[str] = []
        self.left = [str(claim) for claim in there.claims]
        self.shared: list[str] = []

    def note(self, found: bool, what: str) -> None:
        if found:
            self.removed.append(what)

    @contextmanager
    def _leaving(self, what: str, is_told: bool = True) -> Iterator[None]:
        """What may not be removed is no reason to leave the rest."""
        try:
            with translated(what):
                yield
        except (AccessDeniedError, ConfigError) as error:
            if isinstance(error, CredentialsError):
                raise
            self.left += [error.message] if is_told else []

    def leftovers(self) -> None:
        """What the builds of the function left.

        Who may not look at images is told so where there was a function, which has one.
        """
        clients, here = self._clients, self._here
        with self._leaving(f"image of {here.stem}", self._there.function is not None):
            self.note(remove_image(clients.rest, here), f"image of {here.stem}")
        with self._leaving(f"sources of {here.stem}"):
            count = remove_sources(clients.storage, here)
            self.note(count > 0, f"{count:,} {'source' if count == 1 else 'sources'} of {here.stem}")
            self.shared += shared(clients.storage, clients.rest, here)

    def queues(self) -> None:
        clients, here = self._clients, self._here
        with self._leaving("topics and subscriptions"):
            found = find_queues(clients, here.project, here.name, here.region)
            remove_queues(clients, *found)
            self.note(any(found), f"{len(found.topics)} topics, {len(found.subscriptions)} subscriptions")

    def bucket(self) -> None:
        here = self._here
        with self._leaving(f"bucket {here.bucket}"):
            count = remove_bucket(self._clients.storage, here)
            objects = f"{count or 0:,} {'object' if count == 1 else 'objects'}"
            self.note(count is not None, f"bucket {here.bucket} with {objects}")

    def accounts(self) -> None:
        """Last: the roles that they had are gone with what they were on."""
        clients, here = self._clients, self._here
        if "builder" not in self._there.strange:
            with self._leaving(what := f"service account {here.build_account}"):
                self.note(remove_builder(clients.rest, here), what)
        if "account" not in self._there.strange:
            with self._leaving(what := f"service account {here.service_account}"):
                self.note(remove_account(clients.rest, here), what)


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
