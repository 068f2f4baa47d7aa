"""Activation functions, as values: a name and at most one parameter.

All work element by element on float32, but `softmax`, which needs a sum over all neurons of the layer. A
worker holds only some of them, so softmax is allowed on the last layer alone: the workers leave the values
before it (logits), and the client, which assembles the outputs, applies it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fsdcore.arrays import Float32s
from fsdcore.errors import InputError

_LARGEST = float(np.finfo(np.float32).max)


def _identity(z: Float32s, _: float) -> None:
    del z


def _relu(z: Float32s, _: float) -> None:
    np.maximum(z, np.float32(0), out=z)


def _clipped_relu(z: Float32s, bound: float) -> None:
    np.clip(z, np.float32(0), np.float32(bound), out=z)


def _leaky_relu(z: Float32s, slope: float) -> None:
    np.multiply(z, np.float32(slope), out=z, where=z < 0)


def _sigmoid(z: Float32s, _: float) -> None:
    # Through exp of a non-positive number only: no overflow at either end.
    positive = z >= 0
    np.abs(z, out=z)
    np.exp(-z, out=z)
    np.divide(np.where(positive, np.float32(1), z), 1 + z, out=z)


def _tanh(z: Float32s, _: float) -> None:
    np.tanh(z, out=z)


def _softmax(z: Float32s, _: float) -> None:
    if z.shape[0] == 0:
        return
    z -= z.max(axis=0)
    np.exp(z, out=z)
    z /= z.sum(axis=0)


class _Kind(NamedTuple):
    apply: Callable[[Float32s, float], None]
    parameter: str | None = None
    elementwise: bool = True


_KINDS = {
    "identity": _Kind(_identity),
    "relu": _Kind(_relu),
    "clipped_relu": _Kind(_clipped_relu, parameter="bound"),
    "leaky_relu": _Kind(_leaky_relu, parameter="slope"),
    "sigmoid": _Kind(_sigmoid),
    "tanh": _Kind(_tanh),
    "softmax": _Kind(_softmax, elementwise=False),
}


@dataclass(frozen=True)
class Activation:
    """An activation function; `parameter` is the bound of `clipped_relu` (> 0) or slope of `leaky_relu`."""

    name: str
    parameter: float = 0.0

    def __post_init__(self) -> None:
        kind = _KINDS.get(self.name) if isinstance(self.name, str) else None
        if kind is None:
            raise InputError(f"unknown activation {self.name!r}; known: {', '.join(_KINDS)}")
        if not isinstance(self.parameter, float | int):
            raise InputError(f"the parameter of {self.name} must be a number, not {type(self.parameter).__name__}")
        if kind.parameter is None and self.parameter != 0.0:
            raise InputError(f"activation {self.name} takes no parameter")
        # All is computed in float32: a bound that is infinite or zero there would be another function.
        if not abs(self.parameter) <= _LARGEST:
            raise InputError(f"the {kind.parameter} of {self.name} must be a finite number")
        if self.name == "clipped_relu" and np.float32(self.parameter) <= 0:
            raise InputError("the bound of clipped_relu must be above 0")

    @property
    def elementwise(self) -> bool:
        """Whether each value depends on its own input alone; False for softmax."""
        return _KINDS[self.name].elementwise

    def apply(self, z: Float32s) -> None:
        """Replace `z`, float32 `(neurons, samples)`, by its activation, in place."""
        _KINDS[self.name].apply(z, self.parameter)

    def of(self, z: Float32s) -> Float32s:
        """The activation of `z`, as a new array of the same shape."""
        result = np.array(z, dtype=np.float32)
        self.apply(result)
        return result

    def keeps_zero(self, bias: Float32s) -> bool:
        """Whether a sample that is all zero stays so: ``f(b) = 0`` for every bias in `bias`."""
        return self.elementwise and not self.of(bias).any()

    def __str__(self) -> str:
        named = _KINDS[self.name].parameter is not None
        return f"{self.name}({self.parameter:g})" if named else self.name


IDENTITY = Activation("identity")
RELU = Activation("relu")
SIGMOID = Activation("sigmoid")
TANH = Activation("tanh")
SOFTMAX = Activation("softmax")


def clipped_relu(bound: float) -> Activation:
    """``min(max(z, 0), bound)``; the Graph Challenge uses a bound of 32."""
    return Activation("clipped_relu", _number(bound))


def leaky_relu(slope: float) -> Activation:
    """``z`` where positive, ``slope * z`` elsewhere."""
    return Activation("leaky_relu", _number(slope))


def _number(given: float) -> float:
    try:
        return float(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the parameter of an activation must be a number: {error}") from error


def as_activation(given: Any) -> Activation:
    """The activation itself, or the one of that name if it takes no parameter; `InputError` for anything else."""
    if isinstance(given, Activation):
        return given
    if not isinstance(given, str):
        found = getattr(given, "__name__", type(given).__name__)
        raise InputError(f"activation must be one of {', '.join(_KINDS)}, not {found}")
    kind = _KINDS.get(given)
    if kind is not None and kind.parameter is not None:
        raise InputError(f"activation {given} takes a {kind.parameter}: give {given}({kind.parameter}), not its name")
    return Activation(given)
