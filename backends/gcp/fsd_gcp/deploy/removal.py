"""All that is a deployment's own is removed, and what is left is told, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fsd_gcp.deploy.access import remove_account
from fsd_gcp.deploy.bucket import remove_bucket
from fsd_gcp.deploy.builder import remove_builder
from fsd_gcp.deploy.function import remove_function
from fsd_gcp.deploy.leftovers import remove_image, remove_sources, shared
from fsd_gcp.deploy.messaging import find_queues, remove_queues
from fsd_gcp.errors import translated
from fsdcore.contracts.backend import Removal
from fsdcore.errors import AccessDeniedError, ConfigError, CredentialsError

if TYPE_CHECKING:
    from fsd_gcp.clients import Clients
    from fsd_gcp.deploy.inventory import Inventory
    from fsd_gcp.deployment import Deployment
    from fsdcore.record.observer import Observer

__all__ = ["remove_all"]


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
