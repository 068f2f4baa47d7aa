"""Sparse networks: layers of CSR weights, and the oracle that every run is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from fsdcore.arrays import Float32s
from fsdcore.errors import InputError
from fsdcore.network.activations import SOFTMAX, Activation, as_activation
from fsdcore.network.matrices import as_csr, as_floats, frozen


@dataclass(frozen=True, eq=False)
class _Weights:
    """A canonical CSR matrix as its parts, on memory that nobody else can write to."""

    parts: tuple[Float32s, npt.NDArray[Any], npt.NDArray[Any]]
    shape: tuple[int, int]

    @classmethod
    def of(cls, matrix: Any) -> _Weights:
        weights = as_csr(matrix, "weights", "(outputs, inputs)")
        data, indices, indptr = (frozen(part, matrix) for part in (weights.data, weights.indices, weights.indptr))
        return cls((data, indices, indptr), (int(weights.shape[0]), int(weights.shape[1])))

    def matrix(self) -> sp.csr_array:
        made = sp.csr_array(self.parts, shape=self.shape, copy=False)
        made.has_sorted_indices = made.has_canonical_format = True
        return made


def _biases(bias: Any, outputs: int) -> Float32s:
    """`bias` as float32 `(outputs,)`, from as many numbers, one, or None for none."""
    biases = as_floats(0.0 if bias is None else bias, "bias")
    biases = np.full(outputs, biases, dtype=np.float32) if biases.ndim == 0 else biases
    if biases.shape != (outputs,):
        raise InputError(f"bias has shape {biases.shape}, the weights have {outputs} outputs")
    if not np.isfinite(biases).all():
        raise InputError("bias must be finite: there is a NaN or an infinity")
    # What is no array may still share its memory, as a tensor does.
    return frozen(biases, biases)


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Layer:
    """One layer: ``f(weights @ x + bias)``.

    `weights`: CSR float32 `(outputs, inputs)`; any matrix of numbers, dense or scipy's, is taken and brought into
    canonical form. `bias`: float32 `(outputs,)`, or one number for all, or None for none. `activation`: one of
    `activations`, or the name of one that takes no parameter. `InputError` if they do not fit or are not
    finite. What the layer holds is its own and read-only: whoever changes what was given does not change the layer.
    """

    _held: _Weights
    bias: Float32s
    activation: Activation

    def __init__(self, weights: Any, bias: Any, activation: Activation | str) -> None:
        object.__setattr__(self, "_held", _Weights.of(weights))
        object.__setattr__(self, "bias", _biases(bias, self.outputs))
        object.__setattr__(self, "activation", as_activation(activation))

    def __repr__(self) -> str:
        return f"Layer({self.outputs} x {self.inputs}, {self._held.parts[0].size} weights, {self.activation})"

    @property
    def weights(self) -> sp.csr_array:
        """A matrix over the layer's own arrays; whoever gives it others changes that matrix, not the layer."""
        return self._held.matrix()

    @property
    def outputs(self) -> int:
        """Number of neurons the layer computes."""
        return self._held.shape[0]

    @property
    def inputs(self) -> int:
        """Number of neurons the layer reads."""
        return self._held.shape[1]

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
    inputs = as_csr(x, "inputs", "(samples, neurons)")
    if inputs.shape[1] != neurons:
        raise InputError(f"inputs have {inputs.shape[1]} neurons per sample, the network reads {neurons}")
    return inputs


def _layers(layers: Any) -> tuple[Layer, ...]:
    if isinstance(layers, Layer) or not isinstance(layers, Iterable):
        raise InputError(f"a network is made of a list of layers, not of a {type(layers).__name__}")
    found = tuple(layers)
    for number, layer in enumerate(found, start=1):
        if not isinstance(layer, Layer):
            raise InputError(f"layer {number} is a {type(layer).__name__}; make it a Layer(weights, bias, activation)")
    return found


@dataclass(frozen=True, eq=False)
class Network:
    """A sparse network: its layers in order. Layers may differ in size, each reads what the one before computes."""

    layers: tuple[Layer, ...]
    name: str = field(default="network")

    def __init__(self, layers: Iterable[Layer], name: str = "network") -> None:
        object.__setattr__(self, "layers", _layers(layers))
        object.__setattr__(self, "name", name)
        if not isinstance(name, str):
            raise InputError(f"the name of a network must be a text, not {type(name).__name__}")
        if name.encode("utf-8", "ignore").decode() != name:
            raise InputError("the name of a network must be a text of Unicode: there is half of a pair in it")
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

    def overflow(self, x: Any) -> int | None:
        """The first layer, from 1, that computes an infinity or NaN for `x` `(samples, inputs)`; None if none does."""
        y = as_inputs(x, self.inputs)
        with np.errstate(over="ignore", invalid="ignore"):
            for number, layer in enumerate(self.layers, start=1):
                y = layer.step(y)
                if not np.isfinite(y.data).all():
                    return number
        return None

    def infer(self, x: Any) -> Any:
        """The oracle: the outputs for `x` by a plain scipy loop in this process.

        `x` is `(samples, inputs)`, sparse or dense; the result is float32 `(samples, outputs)`, a `csr_array` for
        sparse `x`, a numpy array for dense.
        """
        y = as_inputs(x, self.inputs)
        for layer in self.layers:
            y = layer.step(y)
        return y if sp.issparse(x) else y.toarray()


def as_network(given: Any) -> Network:
    """`given`; `InputError` if it is no network."""
    if isinstance(given, Network):
        return given
    raise InputError(f"this takes a Network, not a {type(given).__name__}; a file is read with load_network")
