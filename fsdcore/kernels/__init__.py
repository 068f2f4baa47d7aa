"""The sparse product ``z += W @ x`` in place: the one hot spot of a run."""

from __future__ import annotations

import scipy.sparse as sp

from fsdcore.activations import FloatArray

__all__ = ["multiply_add", "name"]

# Floats of x and z that one tile may hold together: both then stay in the second-level cache.
_TILE_FLOATS = 128 * 1024
_NARROWEST, _WIDEST = 64, 4096


def name() -> str:
    """Which kernel multiplies."""
    return "scipy"


def multiply_add(weights: sp.csr_array, x: FloatArray, z: FloatArray) -> None:
    """``z += weights @ x``, tile by tile of samples.

    `weights` CSR float32 `(outputs, inputs)`, `x` float32 `(inputs, samples)`, `z` float32 `(outputs, samples)`.
    Each value of `z` gets its row's products in the order of the row's indices, summed, as one addition, so results
    do not depend on the tiles.
    """
    outputs, inputs = weights.shape
    samples = x.shape[1]
    if weights.nnz == 0 or samples == 0:
        return
    width = min(_WIDEST, max(_NARROWEST, _TILE_FLOATS // (outputs + inputs)))
    if samples <= width + width // 2:
        z += weights @ x
        return
    for start in range(0, samples, width):
        z[:, start : start + width] += weights @ x[:, start : start + width]
