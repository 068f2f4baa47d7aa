"""Environments of programs that cannot share the project's."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from fsd_emulators.environments import environment_python
from fsdcore.errors import ServerError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fsd-inference" / "emulators"


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """Of nothing, so that nothing is fetched."""
    file = tmp_path / "requirements.txt"
    file.write_text("# none\n")
    return file


def test_it_is_made_once_and_that_is_told(cache: Path, requirements: Path) -> None:
    told: list[str] = []
    makers = [threading.Thread(target=environment_python, args=("toy", requirements, told.append)) for _ in range(4)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    python = environment_python("toy", requirements, told.append)
    assert told == [f"making an environment for toy in {python.parents[1]}, once"]
    assert python.is_relative_to(cache)
    code = "import sys; print(sys.prefix)"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(python.parents[1])


def test_other_requirements_have_another(cache: Path, requirements: Path) -> None:
    first = environment_python("toy", requirements, print)
    requirements.write_text("# other ones\n")
    assert environment_python("toy", requirements, print) != first


def test_what_a_killed_process_left_behind_is_made_anew(cache: Path, requirements: Path) -> None:
    python = environment_python("toy", requirements, print)
    folder = python.parents[1]
    folder.rename(folder.with_suffix(".unfinished"))
    python.parents[1].with_suffix(".unfinished").joinpath("bin", "python").unlink()
    assert environment_python("toy", requirements, print).exists()


def test_what_cannot_be_installed_is_told_and_leaves_none(cache: Path, requirements: Path) -> None:
    requirements.write_text("no-such-distribution-of-the-project @ file:///no/such/place\n")
    for _ in range(2):
        with pytest.raises(ServerError, match="uv pip failed: "):
            environment_python("toy", requirements, print)
