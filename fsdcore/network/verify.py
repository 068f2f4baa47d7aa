"""Whether outputs are right: within what float32 allows of the network in float64."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.errors import InputError
from fsdcore.network.matrices import as_csr
from fsdcore.network.network import Network, as_inputs, as_network
from fsdcore.network.rounding import ANYTHING, Allowed, Rounding
from fsdcore.record.observer import SILENT, Observer

__all__ = ["Difference", "Verdict", "verify"]

# Differences that are told one by one.
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
