"""The measure of all things here: the plain scipy loop, weights transposed beforehand."""

from __future__ import annotations

import scipy.sparse as sp

import fsdcore as fsd

_CACHE: dict[str, list[sp.csr_array]] = {}


def plain_loop(network: fsd.Network, x: sp.csr_array) -> sp.csr_array:
    """``Y @ W`` layer by layer, CSR times CSR."""
    y = x
    for layer, weights in zip(network.layers, _transposed(network), strict=True):
        y = y @ weights
        y.data += layer.bias[y.indices]
        layer.activation.apply(y.data)
        y.eliminate_zeros()
    return y


def _transposed(network: fsd.Network) -> list[sp.csr_array]:
    if network.fingerprint not in _CACHE:
        _CACHE[network.fingerprint] = [sp.csr_array(layer.weights.T) for layer in network.layers]
    return _CACHE[network.fingerprint]
