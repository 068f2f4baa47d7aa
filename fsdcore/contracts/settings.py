"""Settings: what a run is told, and how settings of any kind are checked.

A field's annotation says all there is to know of a setting: its type, and as `msgspec.Meta` its range and what it is.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import os
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, SupportsIndex, TypeAlias

import msgspec
from msgspec import Meta

from fsdcore.decoding import converted
from fsdcore.errors import ConfigError

Method: TypeAlias = Literal["hypergraph", "block", "random"]
KernelName: TypeAlias = Literal["auto", "compiled", "scipy"]

_WEEK, _MOST = 7 * 86_400, 2**31 - 1
_UNLIMITED = Meta()


class RunSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to run, whatever the backend.

    From a field here follow the key of the configuration, the variable ``FSD_...``, the keyword of `connect`, the
    option of the commands, the row in ``docs/configuration.md``, and what workers and the record are told.
    `ConfigError` for a value of the wrong type or out of range.
    """

    backend: Annotated[str, Meta(min_length=1, description="where workers run; see `fsd backends`")] = "local"
    channel: Annotated[
        str, Meta(min_length=1, description="how rows travel: `queue`, `object`, or `auto` for the cheaper by forecast")
    ] = "queue"
    workers: Annotated[
        int, Meta(ge=1, le=65_535, description="how many take part; 1 is the serial variant, which uses no channel")
    ] = 8
    method: Annotated[Method, Meta(description="how the network is split")] = "hypergraph"
    seed: Annotated[int, Meta(ge=0, le=_MOST, description="the same seed gives the same split")] = 0
    batch_size: Annotated[int, Meta(ge=0, le=_MOST, description="samples per batch; 0 lets the run choose")] = 0
    in_flight: Annotated[
        int, Meta(ge=1, le=1_024, description="batches under way at once; fewer where activations would pass 64 MiB")
    ] = 4
    kernel: Annotated[
        KernelName, Meta(description="what multiplies; `auto` is the compiled kernel where it is installed")
    ] = "auto"
    threads: Annotated[
        int, Meta(ge=0, le=1_024, description="threads a worker multiplies with; 0 for the cores it has to spare")
    ] = 0
    branching: Annotated[int, Meta(ge=1, le=65_535, description="how many workers each worker starts")] = 4
    deadline_seconds: Annotated[float, Meta(gt=0, le=_WEEK, description="the longest wait for one message")] = 60.0
    run_seconds: Annotated[float, Meta(gt=0, le=_WEEK, description="the longest that a run may take")] = 900.0
    trace: Annotated[bool, Meta(description="record when each worker did what, for `fsd trace`")] = False

    def __post_init__(self) -> None:
        for key, kind in _RUN.items():
            msgspec.structs.force_setattr(self, key, checked(key, kind, getattr(self, key), shown=True))


def kinds(settings: type[Any]) -> Mapping[str, Any]:
    """The settings of a struct or dataclass, in order, and the annotation of each."""
    hints = typing.get_type_hints(settings, include_extras=True)
    if issubclass(settings, msgspec.Struct):
        return {name: hints[name] for name in settings.__struct_fields__}
    return {field.name: hints[field.name] for field in dataclasses.fields(settings) if field.init}


_RUN = kinds(RunSettings)


def parts(kind: Any) -> tuple[Any, Meta]:
    """The type of a setting, and its range and description."""
    bare, *extras = typing.get_args(kind) if typing.get_origin(kind) is Annotated else (kind,)
    return bare, next((extra for extra in extras if isinstance(extra, Meta)), _UNLIMITED)


def choices(bare: Any) -> tuple[Any, ...]:
    """The values that a setting may have; empty where they are not listed."""
    return typing.get_args(bare) if typing.get_origin(bare) is Literal else ()


def check_settings(settings: Any) -> None:
    """`ConfigError` for the first setting of a dataclass that is not as its annotation says; for ``__post_init__``."""
    for key, kind in kinds(type(settings)).items():
        checked(key, kind, getattr(settings, key))


def checked(key: str, kind: Any, value: Any, *, strict: bool = True, shown: bool = False) -> Any:
    """`value` as `kind`, an annotation; `ConfigError` that names `key` if it is of another type or out of range.

    If not `strict`, text may stand for a number, a truth value or a list. A text is repeated in the error if it may be
    `shown`.
    """
    bare, limits = parts(kind)
    if not strict and typing.get_origin(bare) in (tuple, list, set, frozenset):
        value = [part.strip() for part in value.split(",")]
    if choices(bare) and value not in choices(bare):
        raise ConfigError(f"{key} must be one of {', '.join(map(str, choices(bare)))}, not {str(value)[:40]!r}")

    def refusal(reason: str) -> ConfigError:
        repeated = f" {value!r}" if shown and isinstance(value, str) and len(value) <= 40 else ""
        return ConfigError(f"{key}: {reason[:1].lower()}{reason[1:].replace('`', '')}{repeated}")

    found = converted(_plain(value), bare, refusal, strict=strict)
    problem = _problem(found, limits)
    if problem:
        raise ConfigError(f"{key} must {problem}")
    return found


def _plain(value: Any) -> Any:
    """A path as text and a numpy integer as int, so that callers may pass them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    whole = isinstance(value, SupportsIndex) and not isinstance(value, (bool, int))
    return operator.index(value) if whole else value


def _problem(value: Any, limits: Meta) -> str | None:
    """What `value` must be and is not; None if nothing is wrong."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"be a finite number, not {value}"
    if limits.min_length and not value.strip():
        return "not be empty"
    if limits.gt is not None and value <= limits.gt:
        return f"be above {limits.gt:g}, not {value}"
    if limits.ge is not None and value < limits.ge:
        return f"be at least {limits.ge:.15g}, not {value}"
    over = limits.le is not None and value > limits.le
    return f"be at most {limits.le:.15g}, not {value}" if over else None
