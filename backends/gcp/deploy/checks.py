"""What `fsd doctor gcp` looks at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fsdcore.backend import Check
from fsdcore.errors import DeploymentMissingError

if TYPE_CHECKING:
    from backends.gcp.backend import GcpBackend

__all__ = ["checks"]


def checks(backend: GcpBackend, workers: int) -> Iterator[Check]:
    """Project, credentials, and the deployment, in that order; an API that is not enabled is told by the last."""
    yield Check("project", True, backend.clients.project)
    yield Check("credentials", True, backend.credentials())
    yield _deployment(backend, workers)


def _deployment(backend: GcpBackend, workers: int) -> Check:
    name = backend.settings.name
    try:
        found = backend.provisioner().status()
    except DeploymentMissingError as error:
        return Check("deployment", False, error.message)
    if not found.ready:
        return Check("deployment", False, f"{name}: {found.problem}")
    remedy = f"run: fsd deploy gcp --name {name} --max-workers {workers}"
    return Check("deployment", found.workers >= workers, f"{name}, for up to {found.workers} workers", remedy)
