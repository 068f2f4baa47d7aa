"""Where the real Graph Challenge data lie, for tests that need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from fsdcore.activations import clipped_relu
from fsdcore.network import Layer, Network

__all__ = ["graph_challenge_data", "official_indices", "official_network", "shared_data"]


def shared_data() -> Path | None:
    """The folder ``shared/data`` beside the project; None if it is not there."""
    folder = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def graph_challenge_data() -> Path:
    """The official data for 1,024 neurons; skips the test where they are not."""
    data = shared_data()
    if data is None or not (data / "graphchallenge-1024" / "weights.npz").is_file():
        pytest.skip("needs the Graph Challenge data in ../shared/data")
    return data / "graphchallenge-1024"


def official_indices() -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The outputs each input feeds, ascending, 0-based int64 `(120, 1024, 32)`."""
    with np.load(graph_challenge_data() / "weights.npz") as weights:
        return np.asarray(weights["indices"], dtype=np.int64)


def official_network(layers: int = 120) -> Network:
    """The first `layers` official layers of 1,024 neurons."""
    indptr = np.arange(0, 1024 * 32 + 1, 32)
    made = []
    for indices in official_indices()[:layers]:
        by_input = sp.csr_array((np.full(1024 * 32, 1 / 16), indices.ravel(), indptr), shape=(1024, 1024))
        made.append(Layer(sp.csr_array(by_input.T), np.full(1024, -0.3, dtype=np.float32), clipped_relu(32)))
    return Network(made, name="official")
