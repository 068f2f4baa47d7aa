"""How ministack is found and started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from backends.aws.emulator.ministack import ministack_command
from fsdcore.errors import MissingExtraError


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of ministack."""
    path = tmp_path / "environment" / "bin" / "ministack"
    path.parent.mkdir(parents=True)
    path.touch(mode=0o755)
    monkeypatch.setenv("MINISTACK_PROGRAM", str(path))
    return path


def test_a_program_outside_of_an_environment_is_refused(program: Path) -> None:
    with pytest.raises(MissingExtraError, match=f"^{program}: no Python beside it") as refused:
        ministack_command()
    assert "\n" not in refused.value.message


def test_the_python_of_its_environment_is_taken_where_a_link_leads_to_the_program(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = program.with_name("python")
    python.touch(mode=0o755)
    link = tmp_path / "ministack"
    link.symlink_to(program)
    monkeypatch.setenv("MINISTACK_PROGRAM", str(link))
    assert ministack_command()[0] == python


def test_modules_beside_the_program_do_not_hide_others(tmp_path: Path) -> None:
    """There are modules of such names beside it."""
    python, *options, program = ministack_command()
    script = tmp_path / "script.py"
    script.write_text("import sys; print([path for path in sys.path if path == sys.argv[1]])")
    done = subprocess.run([python, *options, script, tmp_path], capture_output=True, text=True, check=True)
    assert (done.stdout, os.path.exists(program)) == ("[]\n", True)
