"""Configuration: which backend, how many workers, and where each value came from.

Four sources, a later one wins: the defaults, a TOML file, the environment (``FSD_WORKERS``), arguments.
A key that nobody knows is refused, never passed over; so is a value of the wrong type.
``docs/configuration.md`` has it in full.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from fsdcore.client import registry
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.settings import RunSettings, checked, kinds
from fsdcore.decoding import UNPACK_VARIABLE
from fsdcore.errors import BackendNotFoundError, ConfigError, FormatError, MissingExtraError
from fsdcore.files import read_text
from fsdcore.text import suggestion

# The channel of a run that is to choose the cheapest by its forecast.
AUTO = "auto"

_RUN = kinds(RunSettings)
_PREFIX = "FSD_"
FILE_VARIABLE = "FSD_CONFIG"
_DEFAULT = "default"
_ARGUMENT = "argument"
# What Kubernetes, and links of Docker, set for a service whose name begins with fsd; also FSD_PORT with an address.
_OF_SERVICE = re.compile(r"FSD(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S*")
# What a TOML reader says of the place; only newer Pythons give the line as a number.
_PLACE = re.compile(r" \((?:at line (?P<line>\d+), column \d+|at end of document)\)$")


@dataclass(frozen=True)
class Config:
    """A whole configuration.

    `backend_settings` is an instance of the backend's `settings_type`. `origins` says of each key where its
    value came from: ``default``, ``file fsd.toml``, ``environment FSD_WORKERS`` or ``argument``; the keys of
    the backend's settings are written ``local.path``.
    """

    run: RunSettings
    backend_settings: Any
    origins: Mapping[str, str]


class _Value(NamedTuple):
    """A value as its source gave it; `strict` where the source has types of its own."""

    value: Any
    origin: str
    strict: bool = True


_Values = dict[str, _Value]


class _Source(NamedTuple):
    """What one source says: of the run, and of each backend's settings."""

    run: _Values
    backends: dict[str, _Values]


def load_config(
    file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    settings: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
    **arguments: Any,
) -> Config:
    """The configuration from `file` (or the one that ``FSD_CONFIG`` names), `environ` and `arguments`.

    `arguments` are fields of `RunSettings`, `settings` those of the backend; one that is None counts as not
    given. `assignments` are settings of the backend as text, ``key=value``. `ConfigError`, naming the file,
    variable or argument, for anything unknown or not sound; `BackendNotFoundError` and `MissingExtraError` for a
    backend that is not there.
    """
    sources = [*_files(file, environ), _from_environment(environ), _from_arguments(arguments)]
    run = _merged(source.run for source in sources)
    backend = _backend(run)
    run_settings = _run_settings(run, backend)
    name = run_settings.backend
    named = [source.backends.get(name, {}) for source in sources]
    values = _merged([*named, _as_arguments(settings or {}), _assigned(assignments)])
    return Config(run_settings, _backend_settings(backend, name, values), _origins(run, name, backend, values))


# From each source ------------------------------------------------------------------------------------------


def _files(file: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Iterator[_Source]:
    path = file if file is not None else environ.get(FILE_VARIABLE)
    if path:
        yield _from_file(path)


def _from_file(path: str | os.PathLike[str]) -> _Source:
    name = os.fspath(path)
    origin = f"file {name}"
    source = _Source({}, {})
    backends = registry.backend_names()
    for key, value in _read_toml(name).items():
        if key in _RUN:
            source.run[key] = _Value(value, origin)
        elif key in backends:
            source.backends[key] = {field: _Value(item, origin) for field, item in _table(name, key, value)}
        else:
            what = "table" if isinstance(value, dict) else "key"
            raise ConfigError(f"{name}: unknown {what} {key!r}{suggestion(key, [*_RUN, *backends])}")
    return source


def _read_toml(name: str) -> dict[str, Any]:
    text = _read_text(name)
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{name}: tables or arrays are nested too deep") from error
    except ValueError as error:
        raise ConfigError(_toml_problem(name, text, str(error))) from error


def _read_text(name: str) -> str:
    try:
        return read_text(name)
    except FormatError as error:
        raise ConfigError(error.message) from error


def _toml_problem(name: str, text: str, message: str) -> str:
    place = _PLACE.search(message)
    if place is None:
        return f"{name}: {message}"
    line = place["line"] or text.count("\n") + (not text.endswith("\n"))
    return f"{name}:{line}: {message[: place.start()]}"


def _table(file: str, name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: {name} must be a table, [{name}], with the settings of that backend")
    yield from value.items()


def _from_environment(environ: Mapping[str, str]) -> _Source:
    source = _Source({}, {})
    backends = registry.backend_names()
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or _is_of_others(variable, environ[variable]):
            continue
        backend, key = _variable(variable, backends)
        if environ[variable] == "":
            continue
        values = source.run if backend is None else source.backends.setdefault(backend, {})
        values[key] = _Value(environ[variable], f"environment {variable}", strict=False)
    return source


def _is_of_others(variable: str, value: str) -> bool:
    """Whether a variable that begins like those of the configuration is none of its own."""
    if variable in (FILE_VARIABLE, UNPACK_VARIABLE) or _OF_SERVICE.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and _ADDRESS.fullmatch(value) is not None


def _variable(variable: str, backends: list[str]) -> tuple[str | None, str]:
    """The backend (None for the run) and the key that a variable speaks of."""
    key = variable.removeprefix(_PREFIX).lower()
    if variable.isupper() and key in _RUN:
        return None, key
    for backend in sorted(backends, key=len, reverse=True):
        if variable.startswith(_variable_name(backend) + "_") and not variable.endswith("_"):
            return backend, variable[len(_variable_name(backend)) + 1 :].lower()
    known = [FILE_VARIABLE, UNPACK_VARIABLE, *map(_variable_name, _RUN)]
    known += [f"{_variable_name(backend)}_..." for backend in backends]
    raise ConfigError(f"unknown environment variable {variable}{suggestion(variable, known)}")


def _variable_name(word: str) -> str:
    return _PREFIX + re.sub(r"\W", "_", word).upper()


def _from_arguments(arguments: Mapping[str, Any]) -> _Source:
    for key in arguments:
        if key not in _RUN:
            raise ConfigError(f"unknown argument {key!r}{suggestion(key, list(_RUN))}")
    return _Source(_as_arguments(arguments), {})


def _as_arguments(given: Mapping[str, Any]) -> _Values:
    return {key: _Value(value, _ARGUMENT) for key, value in given.items() if value is not None}


def _assigned(assignments: Iterable[str]) -> _Values:
    values: _Values = {}
    for assignment in assignments:
        key, sign, value = (part.strip() for part in assignment.partition("="))
        if not (key and sign):
            raise ConfigError(f"--set {assignment}: must be KEY=VALUE, such as name=demo")
        values[key] = _Value(value, f"--set {key}", strict=False)
    return values


def _merged(sources: Iterable[_Values]) -> _Values:
    merged: _Values = {}
    for values in sources:
        merged.update(values)
    return merged


# Into settings ---------------------------------------------------------------------------------------------


def _name(run: _Values) -> str:
    return str(run["backend"].value) if "backend" in run else RunSettings().backend


def _backend(run: _Values) -> type[Backend]:
    given = run.get("backend")
    if given is not None:
        _sound("backend", str, given)
    try:
        return registry.backend_class(_name(run))
    except (BackendNotFoundError, MissingExtraError) as error:
        raise type(error)(_place(given) + error.message) from error


def _run_settings(run: _Values, backend: type[Backend]) -> RunSettings:
    values = {key: _sound(key, _RUN[key], given) for key, given in run.items()}
    settings = RunSettings(**values)
    if settings.channel not in (AUTO, *backend.channels):
        _refuse(
            run.get("channel"),
            f"backend {settings.backend!r} has no channel {settings.channel!r}"
            + suggestion(settings.channel, list(backend.channels)),
        )
    return settings


def _sound(key: str, kind: Any, given: _Value) -> Any:
    """The value as `kind` and in range, or a refusal that names where it came from."""
    try:
        return checked(key, kind, given.value, strict=given.strict, shown=True)
    except ConfigError as error:
        _refuse(given, error.message)


def _backend_settings(backend: type[Backend], name: str, values: _Values) -> Any:
    known = kinds(backend.settings_type)
    converted: dict[str, Any] = {}
    for key, given in values.items():
        if key not in known:
            near = suggestion(key, list(known))
            _refuse(given, f"backend {name!r} has no setting {key!r}{near}")
        try:
            converted[key] = checked(key, known[key], given.value, strict=given.strict)
        except ConfigError as error:
            _refuse(given, f"{name}.{error.message}")
    try:
        return backend.settings_type(**converted)
    except (ValueError, TypeError) as error:
        # Where it begins with one of the settings, what gave that is what to change.
        key = str(error).partition(" ")[0].rstrip(":")
        if key in values:
            _refuse(values[key], f"{name}.{error}")
        raise ConfigError(f"settings of backend {name!r}: {error}") from error


def _origins(run: _Values, name: str, backend: type[Backend], settings: _Values) -> Mapping[str, str]:
    origins = {key: run[key].origin if key in run else _DEFAULT for key in _RUN}
    for key in kinds(backend.settings_type):
        origins[f"{name}.{key}"] = settings[key].origin if key in settings else _DEFAULT
    return MappingProxyType(origins)


def _refuse(given: _Value | None, problem: str) -> NoReturn:
    raise ConfigError(_place(given) + problem)


def _place(given: _Value | None) -> str:
    """Where a value came from, before what is wrong with it; an argument needs no name, and a default has none."""
    if given is None or given.origin == _ARGUMENT:
        return ""
    return f"{given.origin.removeprefix('file ')}: "
