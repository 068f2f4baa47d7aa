"""The same bits from every instruction set, on this processor and on arm64."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("kernel_bits.c")
KERNELS = Path(__file__).parents[2] / "fsdcore" / "kernels"
FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=off", "-static", f"-I{KERNELS}", "-Wall", "-Wno-unused"]
ARM_COMPILER, ARM_EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"


def built(compiler: str, folder: Path) -> Path:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler} here")
    program = folder / compiler
    subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(program), "-lm"], check=True)
    return program


def hashes(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("gcc", tmp_path_factory.mktemp("bits"))


@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_every_instruction_set_gives_the_bits_of_the_portable_one(native: Path, name: str) -> None:
    found = hashes(native, name)
    if not found:
        pytest.skip(f"this processor does not have {name}")
    assert found == hashes(native, "portable")


@pytest.mark.slow
def test_arm64_gives_the_same_bits(native: Path, tmp_path: Path) -> None:
    program = built(ARM_COMPILER, tmp_path)
    if shutil.which(ARM_EMULATOR) is None:
        pytest.skip(f"there is no {ARM_EMULATOR} here")
    assert hashes(ARM_EMULATOR, program) == hashes(native, "portable") != ""
