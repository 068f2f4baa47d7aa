"""How services and workers differ from their usual answer: spread, starts, stragglers, doubles, limits.

The usual answers are those of a forecast's model. ``steady`` is a world in which every answer is the usual one.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import msgspec

from fsdcore.decoding import from_toml
from fsdcore.errors import InputError
from fsdcore.files import read_text
from fsdcore.text import suggestion

__all__ = ["SERVICES", "Conditions", "Limit", "Spread", "condition_names", "load_conditions"]

# What takes its time: starting a child, the start of a worker, the store, and the channel.
SERVICES = ("invoke", "start", "put", "get", "send", "delivery", "receive")
# What may be limited: calls that are refused beyond a rate, and repeated.
LIMITED = ("invoke", "put", "get", "send")

_DATA = resources.files("fsdcore.estimate.simulate").joinpath("worlds")


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A factor around 1: log-normal with `sigma`, and of a share `tail` of all calls `tail_factor` times that."""

    sigma: float = 0.0
    tail: float = 0.0
    tail_factor: float = 1.0

    @property
    def steady(self) -> bool:
        """Whether it is always 1."""
        return self.sigma == 0.0 and (self.tail == 0.0 or self.tail_factor == 1.0)


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls of all workers together: `per_second` (0: no limit), `burst` at once; a share `refused` beside that.

    A call that is refused is repeated after `backoff_seconds`, twice as long each time, as an SDK does.
    """

    per_second: float = 0.0
    burst: float = 1.0
    refused: float = 0.0
    backoff_seconds: float = 0.1


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them. `latency` by service, `limits` by service.

    `compute`, `bandwidth`: how workers differ. `cold`: the share of workers that start cold, in the model's
    `start_seconds`; the others take `warm_start_seconds`. `stragglers`: the share of workers that compute
    `straggler_factor` times as long. `duplicates`: the share of frames that come twice. `redelivered`: the share of
    frames that are lost at first and come again after `redelivery_seconds`.
    """

    name: str
    source: str = ""
    latency: dict[str, Spread] = {}
    limits: dict[str, Limit] = {}
    compute: Spread = Spread()
    bandwidth: Spread = Spread()
    cold: float = 1.0
    warm_start_seconds: float = 0.0
    stragglers: float = 0.0
    straggler_factor: float = 1.0
    duplicates: float = 0.0
    redelivered: float = 0.0
    redelivery_seconds: float = 30.0


STEADY = Conditions(name="steady")


def condition_names() -> list[str]:
    """The conditions that come with the project."""
    return sorted(file.name.removesuffix(".toml") for file in _DATA.iterdir() if file.name.endswith(".toml"))


def load_conditions(name: str) -> Conditions:
    """Conditions by their name, or from a file (``*.toml``); `InputError` for what is not there or not sound."""
    if not name.endswith(".toml"):
        if name not in condition_names():
            raise InputError(f"there are no conditions {name!r}{suggestion(name, condition_names())}")
        return _read(name, _DATA.joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    return _read(Path(name).name, read_text(name))


def _read(file: str, text: str) -> Conditions:
    found = from_toml(text, Conditions, lambda reason: InputError(f"{file}: {reason}"))
    check_conditions(found, file)
    return found


def check_conditions(conditions: Conditions, file: str = "conditions") -> None:
    """`InputError` that names what is not sound."""
    for field, known, given in (
        ("latency", SERVICES, conditions.latency),
        ("limits", LIMITED, conditions.limits),
    ):
        for name in given:
            if name not in known:
                raise InputError(f"{file}: {field} of {name!r}; known are {', '.join(known)}")
    for place, value in _numbers("", conditions):
        share = place.rpartition(".")[2] in ("tail", "refused", "cold", "stragglers", "duplicates", "redelivered")
        if not (0 <= value < float("inf")) or (share and value > 1):
            raise InputError(f"{file}: {place} must be {'between 0 and 1' if share else '0 or more'}, not {value}")
    for name, limit in conditions.limits.items():
        if limit.refused == 1:
            raise InputError(f"{file}: limits.{name}.refused is 1: no call would ever be taken")
        if (limit.per_second or limit.refused) and not limit.backoff_seconds:
            raise InputError(f"{file}: limits.{name}.backoff_seconds must be above 0 where calls are refused")


def _numbers(place: str, struct: msgspec.Struct) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in msgspec.structs.asdict(struct).items():
        if isinstance(value, msgspec.Struct):
            found += _numbers(f"{place}{name}.", value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                found += _numbers(f"{place}{name}.{key}.", inner)
        elif not isinstance(value, str):
            found.append((f"{place}{name}", float(value)))
    return found
