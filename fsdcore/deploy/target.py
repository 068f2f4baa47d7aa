"""The machine that a package is for, and which compiled modules can run on it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COMPILED", "Target", "misfit"]

# How the names of compiled modules end, on any system.
COMPILED = frozenset({".so", ".pyd", ".dylib"})
_ELF_MACHINES = {62: "x86_64", 183: "arm64"}
_GLIBC = re.compile(rb"GLIBC_2\.(\d+)")


@dataclass(frozen=True)
class Target:
    """Where a worker runs: `python` such as ``3.13``, `machine` ``x86_64`` or ``arm64``, and Linux with `glibc` 2.x."""

    python: str
    machine: str
    glibc: int

    @property
    def is_here(self) -> bool:
        """Whether this interpreter is of the target's version, so that it can compile for it."""
        return self.python == f"{sys.version_info.major}.{sys.version_info.minor}"

    def __str__(self) -> str:
        return f"Python {self.python} on {self.machine} with glibc 2.{self.glibc}"


def misfit(library: Path, target: Target) -> str | None:
    """Why a compiled module cannot be used on `target`; None if it can."""
    content = library.read_bytes()
    if content[:4] != b"\x7fELF":
        return "not built for Linux"
    if b"libc.so.6" not in content:
        return "not built for a Linux with glibc"
    machine = _ELF_MACHINES.get(int.from_bytes(content[18:20], "little"), "another machine")
    if machine != target.machine:
        return f"built for {machine}, not {target.machine}"
    if "abi3" not in library.name and f"cpython-{target.python.replace('.', '')}-" not in library.name:
        return f"built for another version than Python {target.python}"
    needed = max((int(minor) for minor in _GLIBC.findall(content)), default=0)
    return f"needs glibc 2.{needed}, the target has 2.{target.glibc}" if needed > target.glibc else None
