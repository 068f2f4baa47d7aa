"""``fsd deploy``, ``fsd status``, ``fsd destroy``: the resources that runs on a backend need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsdcore.cli.output import say, say_all, tell, watching
from fsdcore.cli.signals import exit_code
from fsdcore.client.config import load_config
from fsdcore.errors import DeploymentError, DeploymentMissingError, InputError

if TYPE_CHECKING:
    from fsdcore.contracts.backend import DeploymentStatus, Provisioner

BackendName = Annotated[str, typer.Argument(metavar="BACKEND", help="Where workers run; see `fsd backends`.")]
Name = Annotated[str | None, typer.Option(help="Of the deployment; the same as --set name=...")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the backend; may be repeated.")
]
ConfigFile = Annotated[Path | None, typer.Option(help="A configuration file (TOML).")]


def deploy(
    backend: BackendName,
    name: Name = None,
    max_workers: Annotated[
        int | None, typer.Option(help="The most workers of a run; left out, `workers` of the configuration.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show all that would be made; call nothing.")] = False,
    assignments: Assignments = None,
    config: ConfigFile = None,
) -> None:
    """Make everything that runs on BACKEND need, or bring it up to date.

    May be repeated, also after it was stopped: what is there already is kept.
    """
    with _opened(backend, name, assignments, config, max_workers) as (provisioner, workers):
        if dry_run:
            say_all(provisioner.describe(workers))
            return
        with _going_on(), watching() as observer:
            provisioner.observer = observer
            done = provisioner.deploy(workers)
        _require_ready(_shown(done))


def status(backend: BackendName, name: Name = None, assignments: Assignments = None, config: ConfigFile = None) -> None:
    """Show what a deployment on BACKEND has; exit code 2 if there is none, 1 if it cannot be used."""
    with _opened(backend, name, assignments, config) as (provisioner, _):
        found = provisioner.status()
        if not found.resources:
            problem = found.problem or f"run: fsd deploy {backend}"
            raise DeploymentMissingError(f"there is no deployment {found.name!r}; {problem}")
        _require_ready(_shown(found))


def destroy(
    backend: BackendName,
    name: Name = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    assignments: Assignments = None,
    config: ConfigFile = None,
) -> None:
    """Remove everything a deployment on BACKEND has, objects included, and say what was left.

    May be repeated, also after it was stopped. Exit code 1 if something was left.
    """
    with _opened(backend, name, assignments, config) as (provisioner, _):
        if not yes and not _confirmed(provisioner):
            return
        with _going_on(), watching() as observer:
            provisioner.observer = observer
            done = provisioner.destroy()
    for line in done.removed:
        say(f"removed: {line}")
    for line in done.left:
        say(f"left: {line}")
    if done.removed:
        for line in done.shared:
            say(f"stays, of the provider: {line}")
    if not (done.removed or done.left):
        say("nothing to remove")
    if done.left:
        raise DeploymentError(f"{len(done.left)} of the resources were left; run the same command again")


def _confirmed(provisioner: Provisioner) -> bool:
    """Show what there is and ask; True also if there is nothing to see, for `destroy` looks further."""
    found = provisioner.status()
    if not found.resources:
        return True
    _shown(found)
    try:
        return typer.confirm(f"Remove the deployment {found.name!r} with all objects in it?")
    except typer.Abort as error:
        raise InputError("nothing was removed: no answer; run again with --yes") from error


@contextmanager
def _opened(
    name: str, deployment: str | None, assignments: list[str] | None, file: Path | None, workers: int | None = None
) -> Iterator[tuple[Provisioner, int]]:
    """The backend's provisioner and the number of workers that the configuration gives."""
    from fsdcore.client import registry

    kind = registry.backend_class(name)
    given = [*(assignments or ()), *([f"name={deployment}"] if deployment is not None else ())]
    settings = load_config(file, backend=name, channel=kind.channels[0], workers=workers, assignments=given)
    backend = kind(settings.backend_settings)
    try:
        provisioner = backend.provisioner()
        if provisioner is None:
            raise InputError(f"backend {name!r} needs no deployment: run on it at once, with --backend {name}")
        yield provisioner, settings.run.workers
    finally:
        backend.close()


@contextmanager
def _going_on() -> Iterator[None]:
    """Where work may be stopped, say how it goes on."""
    try:
        yield
    except KeyboardInterrupt as error:
        tell("stopped; what was begun is kept; to go on, run the same command again")
        raise typer.Exit(exit_code(error)) from error


def _shown(status: DeploymentStatus) -> DeploymentStatus:
    state = f"ready for runs of up to {status.workers} workers" if status.ready else "not ready"
    say(f"deployment {status.name!r}: {state}")
    for line in status.resources:
        say(f"  {line}")
    return status


def _require_ready(status: DeploymentStatus) -> None:
    if not status.ready:
        raise DeploymentError(f"deployment {status.name!r} is not ready; {status.problem}".rstrip("; "))
