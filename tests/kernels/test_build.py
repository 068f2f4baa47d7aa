"""The compiled kernel's source is for any processor: what cannot run here can at least be compiled."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

import fsdcore.kernels

SOURCE = Path(fsdcore.kernels.__file__).parent / "_native.c"
FLAGS = ["-std=gnu11", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-fPIC", "-pthread"]


def compiled(compiler: str, folder: Path, *more: str) -> Path:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    if not SOURCE.is_file():
        pytest.skip("needs the source of the kernel")
    made = folder / "native.o"
    headers = f"-I{sysconfig.get_path('include')}"
    # The interpreter's own headers may be written for another processor; the kernel's are what is compiled here.
    subprocess.run([compiler, *FLAGS, *more, headers, "-c", str(SOURCE), "-o", str(made)], check=True)
    return made


def test_it_compiles_for_arm64_without_a_warning(tmp_path: Path) -> None:
    made = compiled("aarch64-linux-gnu-gcc", tmp_path)
    # ELF, and there the number of the machine it is for.
    head = made.read_bytes()[:20]
    assert head[:4] == b"\x7fELF"
    assert int.from_bytes(head[18:20], "little") == 183


def test_it_compiles_here_without_a_warning(tmp_path: Path) -> None:
    assert compiled("gcc", tmp_path).stat().st_size > 0


def test_it_asks_for_no_newer_linux_than_the_oldest_of_a_function() -> None:
    """Glibc 2.26, of Lambda's Python 3.11: or it stays out of the package, and results differ in their last bits."""
    built = sorted(SOURCE.parent.glob("_native*.so"))
    if not built:
        pytest.skip("needs the compiled kernel")
    needed = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", built[0].read_bytes())]
    assert max(needed, default=0) <= 26
