"""Where the real Graph Challenge data lie, for tests that need them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp

from fsdcore.network.activations import IDENTITY, clipped_relu
from fsdcore.network.network import Layer, Network


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


def trained_mnist() -> tuple[Network, npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """A network that others trained, 10,000 digits for it, and the class that plain scipy gives for each."""
    data = shared_data()
    if data is None or not (data / "trained-mnist" / "network.npz").is_file():
        pytest.skip("needs the trained network in ../shared/data")
    folder = data / "trained-mnist"
    with np.load(folder / "network.npz") as parts:
        count = sum(name.startswith("b") for name in parts.files)
        layers = [
            Layer(
                sp.csr_array(
                    (parts[f"w{k}.data"], parts[f"w{k}.indices"].astype(np.int32), parts[f"w{k}.indptr"]),
                    shape=tuple(parts[f"w{k}.shape"]),
                ),
                parts[f"b{k}"],
                clipped_relu(1) if k < count else IDENTITY,
            )
            for k in range(1, count + 1)
        ]
    with np.load(folder / "digits-10000.npz") as digits, np.load(folder / "answers.npz") as answers:
        return Network(layers, name="trained-mnist"), digits["pixels"] / np.float32(255), answers["predicted"]


def official_inputs(samples: int) -> sp.csr_array:
    """The first official inputs, CSR `(samples, 1024)`."""
    with np.load(graph_challenge_data() / "images-10000.npz") as images:
        parts = (np.ones(images["indices"].size), images["indices"].astype(np.int32), images["indptr"])
        return sp.csr_array(sp.csr_array(parts, shape=tuple(images["shape"]))[:samples])


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
