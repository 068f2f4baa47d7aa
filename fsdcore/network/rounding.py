"""What a run in float32 may give: a network in float64, and for each output how far rounding may lead away from it.

Two bounds. **Intervals** carry the largest error that any order of summation allows through the layers: sound always,
exact where activations saturate, and useless where weights of both signs cancel, since they grow with every layer.
Where they are too wide, the **spread** of several evaluations, each with rounding errors of its own, tells what errors
do become. Its errors are drawn above those of float32 sums, and some are the same in all neurons, which no averaging
over neurons makes small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.network.activations import Activation
from fsdcore.network.network import Layer, Network

__all__ = ["ANYTHING", "TOLERABLE", "Allowed", "Rounding"]

Floats = npt.NDArray[np.float64]

# An output whose error rounding bounds below this share of the largest output of its sample is well-conditioned.
TOLERABLE = 1e-3
_UNIT = 2.0**-24
_LARGEST = float(np.finfo(np.float32).max)
# Below this numbers of float32 are spaced evenly.
_SMALLEST = 2.0**-149
# The error of what has been infinite or no number. Where it came from leaves an error beyond the other: all is allowed.
_UNKNOWN, ANYTHING = 1e300, 1e39
# Errors of numpy's tanh, exp and division, and of a parameter and its product, in units of the result.
_OF_FUNCTIONS = {"leaky_relu": 2.0, "sigmoid": 8.0, "tanh": 8.0}
_DRAWS = 6
# An error may be larger than the largest that was drawn.
_MARGIN = 4.0
_VALUES = 1 << 17


class Allowed(NamedTuple):
    """Of some samples: `values` and `errors` float64 `(outputs, samples)`; `ill` where an error is not tolerable.

    `overflow` is the first layer, from 1, in which a sum is beyond float32, None if there is none.
    """

    values: Floats
    errors: Floats
    ill: npt.NDArray[np.bool_]
    overflow: int | None


@dataclass(frozen=True)
class _Prepared:
    """A layer in float64, and how much a sum of each row may lose: `bound` for any order, `usual` as a rule."""

    weights: sp.csr_array
    magnitudes: sp.csr_array
    bias: Floats
    bound: Floats
    usual: Floats
    activation: Activation
    keeps_zero: bool
    positive: bool

    @classmethod
    def of(cls, layer: Layer) -> _Prepared:
        weights = layer.weights.astype(np.float64)
        terms = (np.diff(weights.indptr) + 2.0)[:, None]
        positive = bool(np.all(weights.data >= 0))
        magnitudes = weights if positive else abs(weights)
        bias = layer.bias.astype(np.float64)[:, None]
        usual = _UNIT * (2 + 2 * np.sqrt(terms))
        return cls(weights, magnitudes, bias, 1.01 * _UNIT * terms, usual, layer.activation, layer.keeps_zero, positive)

    @property
    def least(self) -> Floats:
        """What a sum of each row may lose whatever its size: each product may fall below what float32 has."""
        return _SMALLEST / _UNIT * self.bound

    def sums(self, x: Floats) -> tuple[Floats, Floats]:
        """``W x + b``, and what its terms add up to without their signs."""
        z = self.weights @ x
        whole = z.copy() if self.positive and bool((x >= 0).all()) else self.magnitudes @ np.abs(x)
        return z + self.bias, whole + np.abs(self.bias)

    def applied(self, z: Floats) -> Floats:
        """The activation, in place."""
        self.activation.apply(z)  # type: ignore[arg-type]
        return z


class Rounding:
    """A network, prepared to say what rounding allows."""

    def __init__(self, network: Network) -> None:
        self._layers = [_Prepared.of(layer) for layer in network.layers]
        self._widest = max(1, *network.widths)

    def strips(self, samples: int) -> Iterator[slice]:
        """Samples to look at together, so that little memory is taken."""
        step = max(1, _VALUES // self._widest)
        return (slice(start, min(samples, start + step)) for start in range(0, samples, step))

    def allowed(self, inputs: sp.csr_array) -> Allowed:
        """For inputs CSR `(samples, neurons)`."""
        x = np.ascontiguousarray(inputs.toarray().T, dtype=np.float64)
        values, errors, overflow = self._intervals(x)
        tolerable = TOLERABLE * np.abs(values).max(axis=0, initial=0.0)
        wide = np.flatnonzero((errors > tolerable).any(axis=0))
        if wide.size:
            spread = _MARGIN * self._spread(x[:, wide], values[:, wide])
            # What is tolerable anyway is not worth an alarm.
            spread = np.maximum(spread, tolerable[wide] / 2)
            narrow = (spread <= tolerable[wide]) & (errors[:, wide] < ANYTHING)
            errors[:, wide] = np.where(narrow, np.minimum(spread, errors[:, wide]), errors[:, wide])
        return Allowed(values, errors, errors > tolerable, overflow)

    def _intervals(self, x: Floats) -> tuple[Floats, Floats, int | None]:
        errors, overflow = np.zeros_like(x), None
        for number, layer in enumerate(self._layers, start=1):
            x, errors, beyond = _through(layer, x, errors)
            if beyond and overflow is None:
                overflow = number
        return x, errors, overflow

    def _spread(self, x: Floats, values: Floats) -> Floats:
        """The largest distance from `values` in some evaluations with errors of their own."""
        found = np.zeros_like(values)
        random = np.random.default_rng(x.shape)
        for draw in range(_DRAWS):
            np.maximum(found, np.abs(self._disturbed(x, draw, random) - values), out=found)
        return found

    def _disturbed(self, x: Floats, draw: int, random: np.random.Generator) -> Floats:
        for layer in self._layers:
            z, whole = layer.sums(x)
            z += (layer.usual * whole + layer.least) * _signs(z.shape, draw, random)
            x = layer.applied(np.clip(z, -_LARGEST, _LARGEST, out=z))
        return x


def _signs(shape: tuple[int, ...], draw: int, random: np.random.Generator) -> Floats | float:
    """Which way errors go: all up, all down, then some of one sample alike and some each on its own."""
    if draw < 2:
        return 1.0 - 2.0 * draw
    alike = random.integers(0, 2, (1, shape[1])) - 0.5
    alone = random.integers(0, 2, shape, dtype=np.int8) - 0.5
    return 1.5 * (alike + alone)


def _through(layer: _Prepared, x: Floats, errors: Floats) -> tuple[Floats, Floats, bool]:
    """Values and errors after a layer; whether a sum was beyond float32."""
    alive = np.flatnonzero(x.any(axis=0) | errors.any(axis=0)) if layer.keeps_zero else np.arange(x.shape[1])
    whole = alive.size == x.shape[1]
    values, after, beyond = _computed(layer, x if whole else x[:, alive], errors if whole else errors[:, alive])
    if whole:
        return values, after, beyond
    shape = (values.shape[0], x.shape[1])
    result, allowed = np.zeros(shape), np.zeros(shape)
    result[:, alive], allowed[:, alive] = values, after
    return result, allowed, beyond


def _computed(layer: _Prepared, x: Floats, errors: Floats) -> tuple[Floats, Floats, bool]:
    z, whole = layer.sums(x)
    grown, inexact = np.zeros_like(z), np.flatnonzero(errors.any(axis=0))
    if inexact.size:
        grown[:, inexact] = layer.magnitudes @ errors[:, inexact]
    wide = grown + layer.bound * (whole + grown) + layer.least
    unknown = whole + grown > _LARGEST
    beyond = bool((np.abs(z) > _LARGEST).any())
    np.clip(z, -_LARGEST, _LARGEST, out=z)
    after = _activated(layer, z, wide)
    values = layer.applied(z)
    if unknown.any():
        after[_reached(layer.activation, unknown)] = _UNKNOWN
    return values, after, beyond


def _reached(activation: Activation, unknown: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where a value is unknown after the activation."""
    return unknown if activation.elementwise else np.broadcast_to(unknown.any(axis=0), unknown.shape)


def _activated(layer: _Prepared, z: Floats, wide: Floats) -> Floats:
    """The error after the activation of sums `z` with errors `wide`."""
    activation = layer.activation
    if not activation.elementwise:
        return _of_softmax(activation, z, wide)
    values = layer.applied(z.copy())
    if activation.name == "leaky_relu" and activation.parameter < 0:
        errors = wide * max(1.0, -activation.parameter)
    else:
        errors = np.maximum(layer.applied(z + wide) - values, values - layer.applied(z - wide))
    lost = _OF_FUNCTIONS.get(activation.name, 0.0)
    return errors + lost * _UNIT * np.abs(values) + _SMALLEST * (bool(lost) or activation.parameter is not None)


def _of_softmax(activation: Activation, z: Floats, wide: Floats) -> Floats:
    values = z.copy()
    activation.apply(values)  # type: ignore[arg-type]
    below = (z.max(axis=0, initial=0.0) - z.min(axis=0, initial=0.0)) * _UNIT
    grown = np.expm1(np.minimum(2 * wide.max(axis=0, initial=0.0) + 2 * below, 700.0))
    errors: Floats = values * (grown + (z.shape[0] + 16) * _UNIT) + _SMALLEST
    return errors
