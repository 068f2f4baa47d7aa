"""The real Graph Challenge network, from its official files to the official answer, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.shared_data import shared_data

DATA = shared_data()
pytestmark = [
    pytest.mark.graph_challenge,
    pytest.mark.skipif(DATA is None, reason="the Graph Challenge data do not lie beside the project"),
]
ALL_WORKERS = [1, 2, 3, 8, 20, 62]
VERIFIED = {(3, "queue"), (62, "object")}


def fsd(*arguments: object) -> None:
    """Run the command; it must end with 0."""
    command = [sys.executable, "-m", "fsdcore.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official files, and the network imported from them."""
    assert DATA is not None
    folder = tmp_path_factory.mktemp("official")
    tool = DATA.parent / "tools" / "graphchallenge_tsv.py"
    subprocess.run([sys.executable, str(tool), str(folder)], check=True, capture_output=True)
    fsd("import", "graph-challenge", folder, "--neurons", 1024, "--layers", 120, "-o", folder / "net.safetensors")
    return folder


def run(folder: Path, workers: int, channel: str, *more: str) -> dict[str, dict[str, int]]:
    """Run all 10,000 inputs, checked against the official categories; returns the record."""
    fsd(
        *("run", folder / "net.safetensors", folder / "sparse-images-1024.tsv", "-o", folder / "out.npz"),
        *("--workers", workers, "--channel", channel, *more, "--record", folder / "run.json"),
        *("--truth", folder / "neuron1024-l120-categories.tsv", "--categories", folder / "found.tsv"),
    )
    official = np.loadtxt(folder / "neuron1024-l120-categories.tsv", dtype=int)
    assert np.array_equal(np.loadtxt(folder / "found.tsv", dtype=int), official)
    assert official.size == 337
    record: dict[str, dict[str, int]] = json.loads((folder / "run.json").read_text())
    return record


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_eight_workers_give_the_official_categories_with_little_traffic(folder: Path, channel: str) -> None:
    counters = run(folder, 8, channel)["counters"]
    assert counters["rows_sent"] <= 110_000
    assert counters["bytes_sent"] <= 7_500_000


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("channel", ["queue", "object"])
@pytest.mark.parametrize("workers", ALL_WORKERS)
def test_any_number_of_workers_gives_the_official_categories(folder: Path, workers: int, channel: str) -> None:
    # All outputs of a run against scipy take two minutes: once for few workers and once for many.
    run(folder, workers, channel, *(["--verify"] if (workers, channel) in VERIFIED else []))
