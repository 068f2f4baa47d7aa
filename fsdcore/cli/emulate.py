"""``fsd emulate``: the services of a backend on this machine."""

from __future__ import annotations

import shlex
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Protocol, Self, cast

import typer

from fsdcore.cli.output import say, tell
from fsdcore.cli.signals import handling, requests_to_end
from fsdcore.client import registry
from fsdcore.errors import InputError, MissingExtraError

__all__ = ["emulate"]

_HOW = "those of the project's backends are in its checkout: pip install ./emulators"


class Services(Protocol):
    """The services of a backend; they run within a block. `services` is where each listens, for people, and
    `environment` the variables that lead the backend, and the provider's own clients, to them."""

    @property
    def services(self) -> Mapping[str, str]: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def emulate(
    backend: Annotated[str, typer.Argument(metavar="BACKEND", help="Whose services to run; see `fsd backends`.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where logs and data are kept; left out, they go when the services stop.")
    ] = None,
) -> None:
    """Run the services of BACKEND on this machine until Ctrl-C; needs no account.

    Writes the variables to set in another terminal, where every command then uses these services.
    """
    with _told_to_stop() as stopped, _kept_in(folder) as kept, _opened(backend, kept) as emulator:
        for service, address in emulator.services.items():
            say(f"# {service}: {address}")
        for name, value in emulator.environment.items():
            say(f"export {name}={shlex.quote(value)}")
        tell(f"{backend} runs on this machine; stop it with Ctrl-C")
        stopped.wait()


@contextmanager
def _kept_in(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="fsd-") as made:
        yield Path(made)


def _opened(backend: str, folder: Path) -> Services:
    kind = registry.emulator_class(backend)
    if kind is None and registry.backend_class(backend)().provisioner() is None:
        raise InputError(f"backend {backend!r} has no services to run: use it as it is")
    if kind is None:
        raise MissingExtraError(f"the services of backend {backend!r} are not installed; {_HOW}")
    return cast(Services, kind(folder))


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set: each is the usual end here, not an error."""
    stopped = threading.Event()
    with handling([signal.SIGINT, *requests_to_end()], lambda *_: stopped.set()):
        yield stopped
