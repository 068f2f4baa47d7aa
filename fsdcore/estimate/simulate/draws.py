"""Chance: factors on usual answers, and calls that are refused. Drawn from a seed, service by service."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fsdcore.estimate.simulate.conditions import LIMITED, SERVICES, Conditions, Limit, Spread

__all__ = ["Chance", "Factors", "Gate"]

Floats = npt.NDArray[np.float64]

_BLOCK = 1 << 15


class Factors:
    """A stream of factors around 1, drawn many at a time."""

    def __init__(self, spread: Spread, rng: np.random.Generator) -> None:
        self._spread, self._rng = spread, rng
        self._drawn = np.ones(0)
        self._at = 0

    def take(self, count: int) -> Floats:
        """The next `count`."""
        if self._at + count > self._drawn.size:
            self._drawn = self._more(max(_BLOCK, count))
            self._at = 0
        self._at += count
        return self._drawn[self._at - count : self._at]

    def one(self) -> float:
        """The next one."""
        return float(self.take(1)[0])

    def _more(self, count: int) -> Floats:
        spread = self._spread
        if spread.steady:
            return np.ones(count)
        drawn = np.exp(spread.sigma * self._rng.standard_normal(count))
        if spread.tail:
            drawn[self._rng.random(count) < spread.tail] *= spread.tail_factor
        return drawn


class Gate:
    """Lets calls of all workers through at a limited rate. A call that finds it shut is refused, and comes again.

    `now` is to be the moment of the present event. Calls may be asked about some time before they are made; those that
    are asked about later must not wait for them, so each is let through as from `now` on.
    """

    def __init__(self, limit: Limit, rng: np.random.Generator) -> None:
        self._limit, self._rng = limit, rng
        self._paid = 0.0
        self.now = 0.0
        self.refused = 0
        self.open = not (limit.per_second or limit.refused)

    def delays(self, times: Floats) -> Floats:
        """What calls at the given times are held up for, in seconds."""
        if self.open:
            return np.zeros(times.size)
        return np.array([self._delay(moment) for moment in times.tolist()])

    def delay(self, time: float) -> float:
        """What one call is held up for."""
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
    """All that is drawn for one run. What one service draws does not depend on the others."""

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
        """Calls that were refused and came again."""
        return sum(gate.refused for gate in self.gates.values())

    def phases(self, count: int) -> Floats:
        """Where in its round a look is when something comes, 0 to 1: the middle where nothing varies."""
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
