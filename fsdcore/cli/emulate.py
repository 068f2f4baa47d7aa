"""``fsd emulate``: the services of a backend on this machine."""

from __future__ import annotations

import shlex
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsdcore import registry
from fsdcore.cli.output import say, tell
from fsdcore.cli.signals import handling, requests_to_end
from fsdcore.errors import InputError

if TYPE_CHECKING:
    from fsdcore.emulation import Emulator

__all__ = ["emulate"]


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


def _opened(backend: str, folder: Path) -> Emulator:
    emulator = registry.backend_class(backend).emulator(folder)
    if emulator is None:
        raise InputError(f"backend {backend!r} has no services to run: use it as it is")
    return emulator


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set: each is the usual end here, not an error."""
    stopped = threading.Event()
    with handling([signal.SIGINT, *requests_to_end()], lambda *_: stopped.set()):
        yield stopped
