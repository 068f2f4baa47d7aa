"""Whether outputs are right: within what float32 allows of the network in float64."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.arrays import Float64s
from fsdcore.errors import InputError
from fsdcore.network.activations import Activation
from fsdcore.network.matrices import as_csr
from fsdcore.network.network import Layer, Network, as_inputs, as_network
from fsdcore.record.observer import SILENT, Observer

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

    values: Float64s
    errors: Float64s
    ill: npt.NDArray[np.bool_]
    overflow: int | None


@dataclass(frozen=True)
class _Prepared:
    """A layer in float64, and how much a sum of each row may lose: `bound` for any order, `usual` as a rule."""

    weights: sp.csr_array
    magnitudes: sp.csr_array
    bias: Float64s
    bound: Float64s
    usual: Float64s
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
    def least(self) -> Float64s:
        """What a sum of each row may lose whatever its size: each product may fall below what float32 has."""
        return _SMALLEST / _UNIT * self.bound

    def sums(self, x: Float64s) -> tuple[Float64s, Float64s]:
        """``W x + b``, and what its terms add up to without their signs."""
        z = self.weights @ x
        whole = z.copy() if self.positive and bool((x >= 0).all()) else self.magnitudes @ np.abs(x)
        return z + self.bias, whole + np.abs(self.bias)

    def applied(self, z: Float64s) -> Float64s:
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

    def _intervals(self, x: Float64s) -> tuple[Float64s, Float64s, int | None]:
        errors, overflow = np.zeros_like(x), None
        for number, layer in enumerate(self._layers, start=1):
            x, errors, beyond = _through(layer, x, errors)
            if beyond and overflow is None:
                overflow = number
        return x, errors, overflow

    def _spread(self, x: Float64s, values: Float64s) -> Float64s:
        """The largest distance from `values` in some evaluations with errors of their own."""
        found = np.zeros_like(values)
        random = np.random.default_rng(x.shape)
        for draw in range(_DRAWS):
            np.maximum(found, np.abs(self._disturbed(x, draw, random) - values), out=found)
        return found

    def _disturbed(self, x: Float64s, draw: int, random: np.random.Generator) -> Float64s:
        for layer in self._layers:
            z, whole = layer.sums(x)
            z += (layer.usual * whole + layer.least) * _signs(z.shape, draw, random)
            x = layer.applied(np.clip(z, -_LARGEST, _LARGEST, out=z))
        return x


def _signs(shape: tuple[int, ...], draw: int, random: np.random.Generator) -> Float64s | float:
    """Which way errors go: all up, all down, then some of one sample alike and some each on its own."""
    if draw < 2:
        return 1.0 - 2.0 * draw
    alike = random.integers(0, 2, (1, shape[1])) - 0.5
    alone = random.integers(0, 2, shape, dtype=np.int8) - 0.5
    return 1.5 * (alike + alone)


def _through(layer: _Prepared, x: Float64s, errors: Float64s) -> tuple[Float64s, Float64s, bool]:
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


def _computed(layer: _Prepared, x: Float64s, errors: Float64s) -> tuple[Float64s, Float64s, bool]:
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


def _activated(layer: _Prepared, z: Float64s, wide: Float64s) -> Float64s:
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


def _of_softmax(activation: Activation, z: Float64s, wide: Float64s) -> Float64s:
    values = z.copy()
    activation.apply(values)  # type: ignore[arg-type]
    below = (z.max(axis=0, initial=0.0) - z.min(axis=0, initial=0.0)) * _UNIT
    grown = np.expm1(np.minimum(2 * wide.max(axis=0, initial=0.0) + 2 * below, 700.0))
    errors: Float64s = values * (grown + (z.shape[0] + 16) * _UNIT) + _SMALLEST
    return errors


# How many differences are listed one by one.
_MOST = 10


class Difference(NamedTuple):
    """One output that is wrong; indices from 0. It may be `allowed` away from what is `expected`."""

    sample: int
    neuron: int
    actual: float
    expected: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"sample {self.sample}, neuron {self.neuron}: {self.actual:g} instead of {self.expected:g}, "
            f"where float32 allows {self.allowed:.2g}"
        )


@dataclass(frozen=True)
class Verdict:
    """What was found of the outputs that are not zero, or should not be.

    `wrong` of `outputs` are outside of what float32 allows, the first of them in `differences`. `ill_conditioned` may
    differ from float64 by more than 0.1 % of the largest output of their sample, for no other reason than the order
    of a sum. `overflow` is the first layer, from 1, in which a sum is beyond float32; None if there is none.
    """

    outputs: int
    wrong: int
    ill_conditioned: int
    overflow: int | None
    differences: list[Difference]

    @property
    def right(self) -> bool:
        """Whether no output is wrong."""
        return not self.wrong

    def __str__(self) -> str:
        if self.wrong:
            return f"{self.wrong:,} of {self.outputs:,} outputs are wrong: {self.differences[0]}"
        text = f"all {self.outputs:,} outputs are within what float32 allows"
        if self.overflow is not None:
            text += f"; sums of layer {self.overflow} are beyond float32"
        if self.ill_conditioned:
            text += f"; {self.ill_conditioned:,} are ill-conditioned: rounding alone may change them by over 0.1 %"
        return text


def verify(network: Network, x: Any, outputs: Any, observer: Observer = SILENT) -> Verdict:
    """Compare `outputs` `(samples, outputs)`, sparse or dense, with the network's for `x` `(samples, inputs)`.

    The network is computed in float64 by scipy, a strip of samples after the other, with what rounding to float32
    may change. `InputError` if the shapes do not fit. Infinite values and NaN are wrong unless a sum is beyond float32.
    """
    inputs = as_inputs(x, as_network(network).inputs)
    actual = as_csr(outputs, "outputs", "(samples, outputs)", finite=False)
    if actual.shape != (inputs.shape[0], network.outputs):
        wanted = (int(inputs.shape[0]), network.outputs)
        raise InputError(f"outputs have shape {tuple(map(int, actual.shape))}, those of the network {wanted}")
    rounding = Rounding(network)
    strips = list(rounding.strips(inputs.shape[0]))
    with ThreadPoolExecutor(os.cpu_count() or 1, "fsd-verify") as pool:
        parts = pool.map(lambda strip: _judged(rounding, inputs[strip], actual[strip], strip.start), strips)
        return _summed(_watched(parts, len(strips), observer))


def _watched(parts: Iterable[Verdict], count: int, observer: Observer) -> Iterable[Verdict]:
    for number, part in enumerate(parts, start=1):
        observer.progress("verify", number, count)
        yield part


def _summed(parts: Iterable[Verdict]) -> Verdict:
    found = list(parts)
    return Verdict(
        sum(part.outputs for part in found),
        sum(part.wrong for part in found),
        sum(part.ill_conditioned for part in found),
        min((part.overflow for part in found if part.overflow is not None), default=None),
        [difference for part in found for difference in part.differences][:_MOST],
    )


def _judged(rounding: Rounding, inputs: sp.csr_array, actual: sp.csr_array, first: int) -> Verdict:
    allowed = rounding.allowed(inputs)
    found = actual.toarray().T.astype(np.float64)
    with np.errstate(invalid="ignore"):
        # Not a number is never within.
        within = np.abs(found - allowed.values) <= allowed.errors
    # Rounding the value that is expected is allowed as well; and where all is, so are infinities.
    within |= found == allowed.values.astype(np.float32)
    within |= allowed.errors >= ANYTHING
    counted = (found != 0) | (allowed.values != 0)
    return Verdict(
        int(counted.sum()),
        int((~within).sum()),
        int((allowed.ill & counted).sum()),
        allowed.overflow,
        _differences(found, allowed, within, first),
    )


def _differences(
    found: npt.NDArray[np.float64], allowed: Allowed, within: npt.NDArray[np.bool_], first: int
) -> list[Difference]:
    places = np.argwhere(~within.T)[:_MOST].tolist()
    return [
        Difference(
            first + sample,
            neuron,
            float(found[neuron, sample]),
            float(allowed.values[neuron, sample]),
            float(allowed.errors[neuron, sample]),
        )
        for sample, neuron in places
    ]
