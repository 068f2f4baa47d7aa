"""Finding backends: each registers its class under the entry point group ``fsdcore.backends``."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from fsdcore.backend import Backend
from fsdcore.errors import BackendNotFoundError, MissingExtraError
from fsdcore.text import suggestion

__all__ = ["GROUP", "backend_class", "backend_names"]

GROUP = "fsdcore.backends"


def backend_names() -> list[str]:
    """Names of all registered backends, installed in full or not, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def backend_class(name: str) -> type[Backend]:
    """The backend of that name.

    `BackendNotFoundError` if none is registered; `MissingExtraError` if it is but a package it needs is missing.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise BackendNotFoundError(f"there is no backend {name!r}{suggestion(name, list(points))}")
    return _load(points[name])


def _load(point: EntryPoint) -> type[Backend]:
    try:
        loaded = point.load()
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"backend {point.name!r} needs the package {error.name!r}, which is not installed; "
            f"run: pip install '{_requirement(point)}'"
        ) from error
    except (ImportError, AttributeError) as error:
        raise BackendNotFoundError(f"backend {point.name!r} ({point.value}) cannot be loaded: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
        raise BackendNotFoundError(
            f"backend {point.name!r} ({point.value}) is not a subclass of fsdcore.backend.Backend"
        )
    return loaded


def _requirement(point: EntryPoint) -> str:
    """What to install: the distribution that registers the backend, with its extras (or the one of its name)."""
    distribution = point.dist.name if point.dist else point.name
    extras = point.extras or [point.name]
    return f"{distribution}[{','.join(extras)}]"
