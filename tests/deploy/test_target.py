"""What can run on a target is told from a compiled module's own bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fsdcore.deploy import Target
from fsdcore.deploy.fetching import misfit

TARGET = Target("3.12", "x86_64", 28)


def elf(machine: int, glibc: int) -> bytes:
    """The parts of a compiled module that matter."""
    return b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + f"libc.so.6 GLIBC_2.{glibc}".encode()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("k.abi3.so", elf(62, 17), None),
        ("k.cpython-312-x86_64-linux-gnu.so", elf(62, 17), None),
        ("k.abi3.so", elf(183, 17), "built for arm64, not x86_64"),
        ("k.abi3.so", elf(62, 36), "needs glibc 2.36, the target has 2.28"),
        ("k.cpython-27-x86_64-linux-gnu.so", elf(62, 17), "built for another version than Python 3.12"),
        ("k.abi3.so", b"\xcf\xfa\xed\xfe" + bytes(30), "not built for Linux"),
        ("k.abi3.so", elf(62, 17).replace(b"libc.so.6", b"libc.musl-x86_64.so.1"), "not built for a Linux with glibc"),
        ("k.abi3.so", elf(62, 17).replace(b"libc.so.6", b"libc.so.7"), "not built for a Linux with glibc"),
        ("k.pyd", b"MZ" + bytes(30), "not built for Linux"),
        ("k.dylib", b"\xcf\xfa\xed\xfe" + bytes(30), "not built for Linux"),
    ],
)
def test_why_a_compiled_module_does_not_fit(name: str, content: bytes, problem: str | None, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert misfit(tmp_path / name, TARGET) == problem


def test_a_target_of_this_python_can_be_compiled_for_here() -> None:
    assert Target(f"{sys.version_info.major}.{sys.version_info.minor}", "arm64", 34).is_here
    assert not Target("3.99", "x86_64", 34).is_here
    assert str(TARGET) == "Python 3.12 on x86_64 with glibc 2.28"
