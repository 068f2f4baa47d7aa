"""How services and workers deviate from their usual speed: spread, cold starts, stragglers, duplicates, rate limits.

The usual speeds are those of a forecast's model. Under ``steady`` every answer takes its usual time.
"""

from __future__ import annotations

import math
from importlib import resources

import msgspec
import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Float64s
from fsdcore.errors import InputError
from fsdcore.estimate.shelf import Shelf, file_of

_BLOCK = 1 << 15


class Factors:
    """A stream of factors around 1, drawn many at a time."""

    def __init__(self, spread: Spread, rng: np.random.Generator) -> None:
        self._spread, self._rng = spread, rng
        self._drawn = np.ones(0)
        self._at = 0

    def take(self, count: int) -> Float64s:
        """The next `count`."""
        if self._at + count > self._drawn.size:
            self._drawn = self._more(max(_BLOCK, count))
            self._at = 0
        self._at += count
        return self._drawn[self._at - count : self._at]

    def one(self) -> float:
        """The next one."""
        return float(self.take(1)[0])

    def _more(self, count: int) -> Float64s:
        spread = self._spread
        if spread.steady:
            return np.ones(count)
        drawn = np.exp(spread.sigma * self._rng.standard_normal(count))
        if spread.tail:
            drawn[self._rng.random(count) < spread.tail] *= spread.tail_factor
        return drawn


class Gate:
    """Lets calls of all workers through at a limited rate. A call beyond the rate is refused, and is retried.

    `now` must be set to the time of the current event. A call may be asked about before its time; calls that are asked
    about later do not wait for it, so each is let through from `now` on.
    """

    def __init__(self, limit: Limit, rng: np.random.Generator) -> None:
        self._limit, self._rng = limit, rng
        self._paid = 0.0
        self.now = 0.0
        self.refused = 0
        self.open = not (limit.per_second or limit.refused)

    def delays(self, times: Float64s) -> Float64s:
        """For calls at the given times, by how many seconds each is delayed."""
        if self.open:
            return np.zeros(times.size)
        return np.array([self._delay(moment) for moment in times.tolist()])

    def delay(self, time: float) -> float:
        """By how many seconds one call is delayed."""
        return 0.0 if self.open else self._delay(time)

    def _delay(self, time: float) -> float:
        limit, tries, waited = self._limit, 0, 0.0
        while limit.refused and self._rng.random() < limit.refused:
            waited += limit.backoff_seconds * 2**tries
            tries += 1
        if limit.per_second:
            free = self._paid - max(limit.burst - 1, 0) / limit.per_second
            while time + waited < free:
                waited += limit.backoff_seconds * 2 ** min(tries, 6) * (0.5 + self._rng.random())
                tries += 1
            self._paid = max(self._paid, self.now) + 1 / limit.per_second
        self.refused += tries
        return waited


class Chance:
    """All random numbers of one run. Each service draws from a stream of its own, independent of the others."""

    def __init__(self, conditions: Conditions, workers: int, seed: int) -> None:
        streams = [np.random.default_rng([seed, number]) for number in range(len(SERVICES) + len(LIMITED) + 2)]
        self.factors = {
            name: Factors(conditions.latency.get(name, Spread()), rng)
            for name, rng in zip(SERVICES, streams, strict=False)
        }
        self.gates = {
            name: Gate(conditions.limits.get(name, Limit()), rng)
            for name, rng in zip(LIMITED, streams[len(SERVICES) :], strict=False)
        }
        self.conditions = conditions
        self._frames = streams[-2]
        own = streams[-1]
        self.slowness = Factors(conditions.compute, own).take(workers).copy()
        self.narrowness = Factors(conditions.bandwidth, own).take(workers).copy()
        if conditions.stragglers:
            self.slowness[own.random(workers) < conditions.stragglers] *= conditions.straggler_factor
        self.cold = own.random(workers) < conditions.cold if conditions.cold < 1 else np.ones(workers, np.bool_)
        self.phased = conditions.latency != {}

    @property
    def refused(self) -> int:
        """How many calls were refused and retried."""
        return sum(gate.refused for gate in self.gates.values())

    def phases(self, count: int) -> Float64s:
        """The share of a poll period from an arrival to the poll that finds it, 0 to 1; 0.5 where nothing varies."""
        return self._frames.random(count) if self.phased else np.full(count, 0.5)

    def chosen(self, share: float, count: int) -> npt.NDArray[np.int64]:
        """A share of `count`, by number; none without a draw if the share is 0."""
        if share == 0.0:
            return np.empty(0, np.int64)
        if count * share < 1 and self._frames.random() > 1 - math.exp(count * math.log1p(-min(share, 0.999999))):
            return np.empty(0, np.int64)
        if count * share < 1:
            return self._frames.integers(0, count, 1)
        return np.flatnonzero(self._frames.random(count) < share)


# What takes its time: starting a child, the start of a worker, the store, and the channel.
SERVICES = ("invoke", "start", "put", "get", "send", "delivery", "receive")
# What may be limited: calls that are refused beyond a rate, and repeated.
LIMITED = ("invoke", "put", "get", "send")

_WORLDS = Shelf(resources.files("fsdcore.estimate.simulate").joinpath("worlds"), "there are no conditions")


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


# Fields that are a share of all calls, messages or workers.
_SHARES = frozenset({"tail", "refused", "cold", "stragglers", "duplicates", "redelivered"})


def condition_names() -> list[str]:
    """The conditions that come with the project."""
    return _WORLDS.names()


def load_conditions(name: str) -> Conditions:
    """Conditions by their name, or from a file (``*.toml``); `InputError` for what is not there or not sound."""
    found = _WORLDS.load(name, Conditions)
    check_conditions(found, file_of(name))
    return found


def check_conditions(conditions: Conditions, file: str = "conditions") -> None:
    """`InputError` that names what is not sound."""
    _check_names(conditions, file)
    for place, value in _numbers("", conditions):
        _check_number(place, value, file)
    for name, limit in conditions.limits.items():
        if limit.refused == 1:
            raise InputError(f"{file}: limits.{name}.refused is 1: no call would ever be taken")
        if (limit.per_second or limit.refused) and not limit.backoff_seconds:
            raise InputError(f"{file}: limits.{name}.backoff_seconds must be above 0 where calls are refused")


def _check_names(conditions: Conditions, file: str) -> None:
    for field, known, given in (
        ("latency", SERVICES, conditions.latency),
        ("limits", LIMITED, conditions.limits),
    ):
        for name in given:
            if name not in known:
                raise InputError(f"{file}: {field} of {name!r}; known are {', '.join(known)}")


def _check_number(place: str, value: float, file: str) -> None:
    share = place.rpartition(".")[2] in _SHARES
    if not (0 <= value < float("inf")) or (share and value > 1):
        raise InputError(f"{file}: {place} must be {'between 0 and 1' if share else '0 or more'}, not {value}")


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
