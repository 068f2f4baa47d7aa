"""Finding backends and emulators: each registers its class under an entry point group."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fsdcore.contracts.backend import Backend
from fsdcore.errors import BackendNotFoundError, MissingExtraError
from fsdcore.text import suggestion

GROUP = "fsdcore.backends"
# Classes made with a folder; their objects start the services of a backend on this machine: `fsd emulate`.
EMULATORS = "fsdcore.emulators"


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
    loaded = _load(points[name])
    if not (isinstance(loaded, type) and issubclass(loaded, Backend)):
        point = points[name]
        raise BackendNotFoundError(
            f"backend {name!r} ({point.value}) is not a subclass of {Backend.__module__}.Backend"
        )
    return loaded


def emulator_class(name: str) -> Any:
    """The class of the services of backend `name` on this machine; None if none are installed for it.

    `MissingExtraError` if a package that they need is missing.
    """
    point = next((point for point in entry_points(group=EMULATORS) if point.name == name), None)
    return None if point is None else _load(point)


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"backend {point.name!r} needs the package {error.name!r}, which is not installed; "
            f"run: pip install '{_requirement(point)}'"
        ) from error
    except (ImportError, AttributeError) as error:
        raise BackendNotFoundError(f"backend {point.name!r} ({point.value}) cannot be loaded: {error}") from error


def _requirement(point: EntryPoint) -> str:
    """What to install: the distribution that registers the backend, with its extras (or the one of its name)."""
    distribution = point.dist.name if point.dist else point.name
    extras = point.extras or [point.name]
    return f"{distribution}[{','.join(extras)}]"
