"""Fixtures of the tests of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdcore.network.formats import save_network, save_outputs
from fsdcore.testing import random_inputs, random_network


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a network, inputs and a configuration."""
    monkeypatch.chdir(tmp_path)
    save_network(random_network((30, 40, 35, 20)), tmp_path / "net.safetensors")
    save_outputs(tmp_path / "x.npz", random_inputs(50, 30))
    (tmp_path / "fsd.toml").write_text('method = "block"\n[local]\npath = "store"\n')
    monkeypatch.setenv("FSD_CONFIG", "fsd.toml")
    return tmp_path
