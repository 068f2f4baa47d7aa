"""Sparse networks: layers of CSR weights, and the oracle that every run is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from fsdcore.activations import SOFTMAX, Activation, FloatArray
from fsdcore.errors import InputError

__all__ = ["Layer", "Network", "as_inputs"]


def _canonical(matrix: Any, what: str, axes: str) -> sp.csr_array:
    """`matrix` as CSR float32 with int32 indices, sorted, no duplicates, no stored zeros."""
    try:
        if np.iscomplexobj(matrix):
            raise TypeError("complex numbers are not supported")
        # What is too large for float32 becomes an infinity, which is refused below.
        with np.errstate(over="ignore"):
            weights = sp.csr_array(matrix, dtype=np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be a matrix of numbers {axes}: {error}") from error
    if weights.ndim != 2:
        raise InputError(f"{what} must have 2 dimensions {axes}, not {weights.ndim}")
    if not weights.has_canonical_format or np.count_nonzero(weights.data) != weights.nnz:
        weights = weights.copy()
        weights.sum_duplicates()
        weights.eliminate_zeros()
    if not np.isfinite(weights.data).all():
        raise InputError(f"{what} must be finite: there is a NaN or an infinity")
    weights.indices = weights.indices.astype(np.int32, copy=False)
    weights.indptr = weights.indptr.astype(np.int32 if weights.nnz < 2**31 else np.int64, copy=False)
    return weights


def _biases(bias: Any, outputs: int) -> FloatArray:
    """`bias` as float32 `(outputs,)`, from as many numbers or one."""
    try:
        with np.errstate(over="ignore"):
            biases = np.asarray(bias, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"bias must be one number or a row of numbers: {error}") from error
    biases = np.full(outputs, biases, dtype=np.float32) if biases.ndim == 0 else biases
    if biases.shape != (outputs,):
        raise InputError(f"bias has shape {biases.shape}, the weights have {outputs} outputs")
    if not np.isfinite(biases).all():
        raise InputError("bias must be finite: there is a NaN or an infinity")
    return biases


@dataclass(frozen=True, eq=False, init=False)
class Layer:
    """One layer: ``f(weights @ x + bias)``.

    `weights`: CSR float32 `(outputs, inputs)`; anything scipy can read as such is taken and brought into canonical
    form. `bias`: float32 `(outputs,)`, or one number for all. `InputError` if they do not fit or are not finite.
    """

    weights: sp.csr_array
    bias: FloatArray
    activation: Activation

    def __init__(self, weights: Any, bias: Any, activation: Activation) -> None:
        object.__setattr__(self, "weights", _canonical(weights, "weights", "(outputs, inputs)"))
        object.__setattr__(self, "bias", _biases(bias, self.weights.shape[0]))
        object.__setattr__(self, "activation", activation)

    @property
    def outputs(self) -> int:
        """Number of neurons the layer computes."""
        return int(self.weights.shape[0])

    @property
    def inputs(self) -> int:
        """Number of neurons the layer reads."""
        return int(self.weights.shape[1])

    @cached_property
    def keeps_zero(self) -> bool:
        """Whether an all-zero sample stays all zero in this layer."""
        return self.activation.keeps_zero(self.bias)

    def step(self, x: sp.csr_array) -> sp.csr_array:
        """``x`` CSR float32 `(samples, inputs)` to CSR `(samples, outputs)`, by plain scipy."""
        z = sp.csr_array(x @ self.weights.T)
        if not self.keeps_zero:
            return sp.csr_array(self.activation.of(z.toarray().T + self.bias[:, None]).T)
        z.data += self.bias[z.indices]
        self.activation.apply(z.data)
        z.eliminate_zeros()
        return z


def as_inputs(x: Any, neurons: int) -> sp.csr_array:
    """Inputs as CSR float32 `(samples, neurons)`; `InputError` if `x` cannot be that."""
    inputs = _canonical(x, "inputs", "(samples, neurons)")
    if inputs.shape[1] != neurons:
        raise InputError(f"inputs have {inputs.shape[1]} neurons per sample, the network reads {neurons}")
    return inputs


@dataclass(frozen=True, eq=False)
class Network:
    """A sparse network: its layers in order. Layers may differ in size, each reads what the one before computes."""

    layers: tuple[Layer, ...]
    name: str = field(default="network")

    def __init__(self, layers: Iterable[Layer], name: str = "network") -> None:
        object.__setattr__(self, "layers", tuple(layers))
        object.__setattr__(self, "name", name)
        if not self.layers:
            raise InputError("a network needs at least one layer")
        for number, (before, after) in enumerate(zip(self.layers, self.layers[1:], strict=False), start=2):
            if before.outputs != after.inputs:
                raise InputError(
                    f"layer {number} reads {after.inputs} neurons, layer {number - 1} computes {before.outputs}"
                )
            if before.activation == SOFTMAX:
                raise InputError(
                    f"layer {number - 1} has softmax, which is allowed on the last layer only: "
                    "it needs a sum over all neurons, which no worker holds"
                )

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def inputs(self) -> int:
        """Neurons of a sample that goes in."""
        return self.layers[0].inputs

    @property
    def outputs(self) -> int:
        """Neurons of a sample that comes out."""
        return self.layers[-1].outputs

    @property
    def nonzeros(self) -> int:
        """Weights of all layers."""
        return sum(layer.weights.nnz for layer in self.layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons at each boundary, input first: ``len(network) + 1`` numbers."""
        return (self.inputs, *(layer.outputs for layer in self.layers))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights, biases and activations, as 64 hex digits; the name is not part of it."""
        digest = hashlib.sha256(b"fsd-network-1")
        for layer in self.layers:
            weights = layer.weights
            digest.update(repr((weights.shape, weights.nnz, str(layer.activation))).encode())
            digest.update(np.float64(layer.activation.parameter).tobytes())
            digest.update(np.diff(weights.indptr).astype("<i8").tobytes())
            digest.update(weights.indices.astype("<i4", copy=False).tobytes())
            digest.update(weights.data.astype("<f4", copy=False).tobytes())
            digest.update(layer.bias.astype("<f4", copy=False).tobytes())
        return digest.hexdigest()

    def infer(self, x: Any) -> Any:
        """The oracle: the outputs for `x` by a plain scipy loop in this process.

        `x` is `(samples, inputs)`, sparse or dense; the result is float32 `(samples, outputs)`, a `csr_array` for
        sparse `x`, a numpy array for dense.
        """
        y = as_inputs(x, self.inputs)
        for layer in self.layers:
            y = layer.step(y)
        return y if sp.issparse(x) else y.toarray()
