"""The example of a backend in a package of its own: found by its entry point alone, and it passes its suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fsdcore.testing import random_inputs, random_network
from tests.conftest import SessionMaker

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "backend-filesystem"
FIND = """
from fsdcore.client.registry import backend_class, backend_names
print(*backend_names())
print(backend_class("filesystem").summary)
"""
RUN = """
import sys, numpy as np
from fsdcore.api import connect
from fsdcore.testing import random_inputs, random_network
network, x = random_network((20, 24, 24, 20)), random_inputs(12, 20)
with connect("filesystem", workers=3, channel="queue", method="block", settings={"root": sys.argv[1]}) as session:
    np.save(sys.argv[2], session.load(network).run(x.toarray()).outputs)
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, with nothing of the project's own folder around it."""
    copy = tmp_path_factory.mktemp("example") / EXAMPLE.name
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "*_cache"))
    return copy


@pytest.fixture(scope="module")
def installed(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a process for which the example is installed, from a wheel as its users would have it."""
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("target")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=example, check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return {**os.environ, "PYTHONPATH": str(target)}


def run(code: str, *arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=120, check=False)


def test_it_is_found_by_its_entry_point(installed: Mapping[str, str]) -> None:
    found = run(FIND, env=installed)
    assert found.stderr == ""
    names, summary = found.stdout.splitlines()
    assert {"filesystem", "local"} <= set(names.split())
    assert summary == "processes of this machine that share a directory"


def test_it_is_unknown_where_it_is_not_installed() -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    missing = run(FIND, env=env)
    assert "BackendNotFoundError: there is no backend 'filesystem'" in missing.stderr


def test_a_run_over_processes_gives_what_threads_give(
    installed: Mapping[str, str], tmp_path: Path, make_session: SessionMaker
) -> None:
    done = run(RUN, str(tmp_path / "files"), str(tmp_path / "outputs.npy"), env=installed)
    assert (done.returncode, done.stderr) == (0, "")
    network, x = random_network((20, 24, 24, 20)), random_inputs(12, 20)
    local = make_session(workers=3).load(network).run(x.toarray())
    np.testing.assert_array_equal(np.load(tmp_path / "outputs.npy"), local.outputs)


def test_it_passes_the_suites(example: Path, installed: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "tests"]
    done = subprocess.run(command, cwd=example, env=installed, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
