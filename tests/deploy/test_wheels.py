"""``make wheels``: what a release consists of installs, and has the kernel that its name promises."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import uv

from fsdcore.deploy import Target
from fsdcore.deploy.fetching import misfit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
_KERNEL = "fsdcore/kernels/_native.abi3.so"
_TELL = "from fsdcore.kernels import kernel_name; print(kernel_name())"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By platform: what ``make wheels`` makes of a clean copy."""
    if shutil.which("make") is None or shutil.which("git") is None:
        pytest.skip("needs make and git")
    copy = tmp_path_factory.mktemp("release") / "the project"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=PROJECT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("needs a checkout of the project")
    for name in listed.stdout.splitlines():
        if (PROJECT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, copy / name)
    # The environment of the tests in place of one of its own, and left as it is.
    ready = Path(sys.prefix) / ".ready"
    subprocess.run(["make", "-o", ready, "wheels", f"VENV={sys.prefix}", f"READY={ready}"], cwd=copy, check=True)
    made = {path.stem.split("-")[-1]: path for path in (copy / "dist").glob("*.whl")}
    assert len(list((copy / "dist").glob("*.tar.gz"))) == 1
    return made


def test_there_is_one_for_every_machine(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {"manylinux_2_17_x86_64", "manylinux_2_17_aarch64", "any"}
    contents = {platform: zipfile.ZipFile(path).namelist() for platform, path in wheels.items()}
    assert [platform for platform, names in sorted(contents.items()) if _KERNEL in names] == [
        "manylinux_2_17_aarch64",
        "manylinux_2_17_x86_64",
    ]
    for names in contents.values():
        # What a deployment compiles the kernel from, fetches, and installs.
        for needed in ("kernels/_native.c", "kernels/_python.h", "kernels/flags.txt", "deploy/compiler.txt"):
            assert f"fsdcore/{needed}" in names
        assert "fsd_aws/deploy/requirements.txt" in names
        assert "fsd_gcp/deploy/requirements.txt" in names
        assert not any(name.startswith("tests/") for name in names)


@pytest.mark.parametrize(("platform", "machine"), [("x86_64", "x86_64"), ("aarch64", "arm64")])
def test_the_kernel_in_it_runs_on_the_oldest_linux(
    platform: str, machine: str, wheels: dict[str, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheels[f"manylinux_2_17_{platform}"]) as archive:
        kernel = Path(archive.extract(_KERNEL, tmp_path))
    assert misfit(kernel, Target("3.11", machine, 17)) is None


@pytest.mark.parametrize("platform", ["manylinux_2_17_x86_64", "any"])
def test_it_installs_and_multiplies(platform: str, wheels: dict[str, Path], tmp_path: Path) -> None:
    program = uv.find_uv_bin()
    subprocess.run([program, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    installed = subprocess.run(
        [program, "pip", "install", "--quiet", "--python", str(python), f"{wheels[platform]}[client]"],
        capture_output=True,
        text=True,
    )
    if "not compatible" in installed.stderr or "incompatible" in installed.stderr:
        pytest.skip(f"this machine is not {platform}")
    assert installed.returncode == 0, installed.stderr
    done = subprocess.run([python, "-I", "-c", _TELL], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("compiled (" if platform != "any" else "scipy (")
