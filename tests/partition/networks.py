"""Small random networks with all that a partitioner may stumble over."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from hypothesis import strategies as st

from fsdcore.network.activations import RELU
from fsdcore.network.network import Layer, Network


def layer_of(matrix: npt.ArrayLike) -> Layer:
    return Layer(sp.csr_array(np.asarray(matrix, np.float32)), np.float32(0), RELU)


def _matrix(outputs: int, inputs: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    matrix: npt.NDArray[np.bool_] = rng.random((outputs, inputs)) < rng.choice(
        [0.0, 0.05, 0.2, 0.6, 1.0], p=[0.1, 0.2, 0.4, 0.2, 0.1]
    )
    if rng.random() < 0.3:
        matrix[rng.random(outputs) < 0.5] = False
    if rng.random() < 0.3:
        matrix[:, rng.random(inputs) < 0.5] = False
    if rng.random() < 0.3:
        matrix = matrix[rng.integers(0, max(1, outputs // 4), outputs)]
    return matrix


def random_network(widths: list[int], seed: int) -> Network:
    """Layers of these widths: empty ones, dense ones, with empty rows and columns, with rows that are the same."""
    rng = np.random.default_rng(seed)
    return Network(layer_of(_matrix(after, before, rng)) for before, after in pairwise(widths))


def networks() -> st.SearchStrategy[Network]:
    widths = st.lists(st.sampled_from([1, 2, 3, 7, 8, 16, 17, 40, 90]), min_size=2, max_size=5)
    return st.builds(random_network, widths, st.integers(0, 2**32 - 1))
