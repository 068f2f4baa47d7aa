"""``fsd backends``, ``fsd config show``, ``fsd doctor``: what is there."""

from __future__ import annotations

import dataclasses
import platform
import shlex
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self, cast

import typer

from fsdcore.cli.commands import group, register
from fsdcore.cli.output import say, size, table, tell, version
from fsdcore.cli.signals import handling, requests_to_end
from fsdcore.client import registry
from fsdcore.contracts.backend import Check
from fsdcore.contracts.settings import RunSettings, kinds
from fsdcore.errors import BackendNotFoundError, FsdError, InputError, MissingExtraError

if TYPE_CHECKING:
    from fsdcore.client.config import Config
    from fsdcore.contracts.backend import Backend

config_app = group("The configuration.")

ConfigFile = Annotated[Path | None, typer.Option(help="A configuration file (TOML).")]

# Each distribution and the extra that brings it; None for what every worker needs.
_DISTRIBUTIONS = {
    "numpy": None,
    "scipy": None,
    "msgspec": None,
    "safetensors": None,
    "mtkahypar": "client",
    "typer": "client",
    "rich": "client",
    "tomli-w": "client",
    "scikit-learn": "demo",
    "boto3": "aws",
    "google-cloud-functions": "gcp",
    "google-cloud-pubsub": "gcp",
    "google-cloud-storage": "gcp",
}


_REINSTALL = "install the project (pip install fsd-inference)"


def backends() -> None:
    """Show the backends, their channels and limits, and what is missing."""
    found = {name: _opened(name) for name in registry.backend_names()}
    if not found:
        raise BackendNotFoundError(f"no backend is registered under {registry.GROUP!r}: {_REINSTALL}")
    rows = [row for name, backend in found.items() for row in _backend_rows(name, backend)]
    table(("backend", "state", "channel", "frame", "frames/publish", "publish"), rows)
    for name, backend in found.items():
        if not isinstance(backend, FsdError):
            say(f"{name}: {backend.summary}")
            backend.close()


def _backend_rows(name: str, backend: Backend | FsdError) -> Iterator[tuple[str, ...]]:
    """A row for each channel, or one that says why there is none."""
    if isinstance(backend, FsdError):
        yield name, _missing(backend), "-", "-", "-", "-"
        return
    for channel in backend.channels:
        yield (name, "installed", channel, *_limits(backend, channel))


def _opened(name: str) -> Backend | FsdError:
    """The backend with its configured settings, or why it cannot be had."""
    try:
        return registry.backend_class(name)(_settings(name))
    except (ImportError, AttributeError) as error:
        # A package that registers what it does not hold must not hide the other backends.
        return BackendNotFoundError(f"broken: {error}")
    except FsdError as error:
        return error


def _missing(error: FsdError) -> str:
    _, run, command = error.message.partition("run: ")
    return f"missing, {run}{command}" if isinstance(error, MissingExtraError) and run else error.message


def _settings(name: str) -> Any:
    from fsdcore.client.config import load_config

    return load_config(backend=name, channel=registry.backend_class(name).channels[0]).backend_settings


def _limits(backend: Backend, channel: str) -> tuple[str, str, str]:
    limits = backend.channel_capabilities(channel)
    return size(limits.max_frame_bytes), f"{limits.max_publish_frames:,}", size(limits.max_publish_bytes)


@config_app.callback()
def _config() -> None:
    """The configuration."""


@register(config_app, "show")
def show(config: ConfigFile = None) -> None:
    """Show each value and where it came from."""
    from fsdcore.client.config import load_config

    table(("key", "value", "from"), _config_rows(load_config(config)))


def _config_rows(settings: Config) -> Iterator[tuple[str, str, str]]:
    run, own = settings.run, settings.backend_settings
    for key in kinds(RunSettings):
        yield key, _shown(getattr(run, key), True), settings.origins[key]
    for field in dataclasses.fields(own):
        key = f"{run.backend}.{field.name}"
        if field.init:
            yield key, _shown(getattr(own, field.name), field.repr), settings.origins[key]


def _shown(value: Any, open_to_all: bool) -> str:
    """The value; of a field kept out of the dataclass's repr (a secret) only whether it is set."""
    if open_to_all or not value:
        return "(not set)" if value is None else str(value) or "(empty)"
    return "(set, hidden)"


def doctor(
    backend: Annotated[
        str | None, typer.Argument(metavar="[BACKEND]", help="Check only this backend, its services included.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the deployment; the same as --set name=...")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the backend; may be repeated.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Show versions, kernel, backends and credentials; exit code 1 if no backend can be used.

    With BACKEND: check its credentials, quotas and deployment; exit code 1 if one is not as it must be.
    """
    if backend is not None:
        given = [*(assignments or ()), *([f"name={name}"] if name is not None else ())]
        _check_backend(backend, given, config)
        return
    table(("part", "version"), list(_versions(config)))
    say("")
    states = {name: _state(name) for name in registry.backend_names()}
    table(("backend", "channels", "credentials"), [(name, *state[1:]) for name, state in states.items()])
    if not any(usable for usable, *_ in states.values()):
        say(f"no backend can be used: {_REINSTALL}")
        raise typer.Exit(1)


def _check_backend(name: str, assignments: list[str], file: Path | None) -> None:
    from fsdcore.client.config import load_config

    kind = registry.backend_class(name)
    settings = load_config(file, backend=name, channel=kind.channels[0], assignments=assignments)
    backend = kind(settings.backend_settings)
    try:
        found = list(_looked_at(backend, settings.run.workers))
    finally:
        backend.close()
    for check in found:
        remedy = f"; {check.remedy}" if check.remedy and not check.ok else ""
        say(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}{remedy}")
    if not all(check.ok for check in found):
        raise typer.Exit(1)


def _looked_at(backend: Backend, workers: int) -> Iterator[Check]:
    """The checks of a backend; an error is the last of them."""
    try:
        yield from backend.checks(workers)
    except FsdError as error:
        yield Check("access", False, error.message)


def _versions(file: Path | None) -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    yield "fsd-inference", version("fsd-inference") or "not installed"
    for distribution, extra in _DISTRIBUTIONS.items():
        hint = f"not installed; pip install 'fsd-inference[{extra}]'" if extra else "not installed"
        yield distribution, version(distribution) or hint
    yield "kernel", _kernel(file)


def _kernel(file: Path | None) -> str:
    """What the configured setting gives; `ConfigError` if it is a kernel that is not installed."""
    from fsdcore.client.config import load_config
    from fsdcore.kernels import kernel_name

    try:
        choice = load_config(file).run.kernel
    except (BackendNotFoundError, MissingExtraError) as error:
        # The backends below say more; versions are shown all the same.
        return f"not known: {error.message}"
    return kernel_name(choice)


def _state(name: str) -> tuple[bool, str, str]:
    """Whether a backend can be used, its channels, and what credentials it finds."""
    backend = _opened(name)
    if isinstance(backend, FsdError):
        return False, "-", _missing(backend)
    try:
        found = backend.credentials()
    except FsdError as error:
        return False, ", ".join(backend.channels), _missing(error)
    finally:
        backend.close()
    return True, ", ".join(backend.channels), found


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
    with _told_to_stop() as stopped, _kept_in(folder) as kept, _services_of(backend, kept) as emulator:
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


def _services_of(backend: str, folder: Path) -> Services:
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
