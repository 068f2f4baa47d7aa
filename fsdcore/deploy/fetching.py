"""Distributions from the package index, at the versions and hashes of a lock, by uv.

uv is a program of its own, which chooses wheels for any machine from any other, in an environment with pip or without.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fsdcore.errors import DeploymentError
from fsdcore.record.observer import Observer

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


_ARCHITECTURES = {"x86_64": "x86_64", "arm64": "aarch64"}
# The minor versions of glibc that uv knows a platform of.
_PLATFORMS = (17, 28, *range(31, 41))


def fetch(lock: Path, folder: Path, what: str, target: Target | None = None) -> None:
    """Install all that `lock` names into `folder`, a new one, for `target`, or for this machine.

    `lock` has the form of a requirements file with a hash for each distribution, all that they depend on included;
    `what` names it in messages. `DeploymentError` if something cannot be had, or is not what its hash says.
    """
    folder.mkdir(parents=True)
    command = [_uv(), "pip", "install", "--quiet", "--color", "never", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--python", sys.executable]
    command += ["--target", str(folder.absolute()), "-r", str(lock.absolute())]
    # What is for this machine is not needed again; what is kept must not go with uv's cache.
    command += [*wheels_for(target), "--link-mode", "copy"] if target else ["--no-cache"]
    environ = {name: value for name, value in os.environ.items() if name != "RUST_LOG"}
    # Where no project lies, whose settings are not for this.
    done = called(command, Path(folder.absolute().anchor), environ)
    if done.returncode:
        raise DeploymentError(f"{what} cannot be had: {_reason(done.stderr)}")


def called(command: list[str], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever that is; `DeploymentError` if it cannot be run at all."""
    try:
        return subprocess.run(
            command, cwd=folder, env=environ, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError as error:
        raise DeploymentError(f"{command[0]} cannot be run: {error.strerror}") from error


def wheels_for(target: Target) -> list[str]:
    """The options that make uv choose wheels for `target` instead of this machine."""
    glibc = max(minor for minor in _PLATFORMS if minor <= target.glibc)
    platform = f"{_ARCHITECTURES[target.machine]}-manylinux_2_{glibc}"
    return ["--python-version", target.python, "--python-platform", platform]


def _uv() -> str:
    """The program: the one installed beside this project, or one on the search path."""
    try:
        from uv import find_uv_bin

        return os.fspath(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise DeploymentError("packages for workers are fetched by uv, which is not installed; run: pip install uv")
    return found


def _reason(told: str) -> str:
    """What uv said, in one line."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    reason = f"uv: {' '.join(lines).removeprefix('error: ') or 'no reason given'}"
    if "unexpected argument" in reason:
        reason += "; it is too old, run: pip install --upgrade uv"
    if "Failed to fetch" in reason:
        reason += "; another index is set by UV_DEFAULT_INDEX, a proxy by HTTPS_PROXY"
    return reason


# What the names of folders begin with in which something is being made.
SCRATCH = "making-"
_DIGITS = 16


def kept(folder: Path, stem: str, make: Callable[[Path], Path], task: str, observer: Observer) -> Path:
    """What is kept in `folder` as `stem`; if there is nothing, what `make` makes in a new folder that it is given.

    `observer` hears of `task` if it is made.
    """
    path = find(folder, stem)
    if path is None:
        folder.mkdir(parents=True, exist_ok=True)
        observer.progress(task, 0, 1)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as scratch:
            path = keep(make(Path(scratch)), folder, stem)
        observer.progress(task, 1, 1)
    return path


def find(folder: Path, stem: str) -> Path | None:
    """What was kept in `folder` as `stem`, whole; None if there is nothing."""
    for path in folder.glob(f"{stem}-*"):
        if path.stem.rpartition("-")[2] == _digest(path):
            return path
    return None


def keep(made: Path, folder: Path, stem: str) -> Path:
    """Move what was made to `folder`, to be found as `stem`; it keeps its ending."""
    path = folder / f"{stem}-{_digest(made)}{made.suffix}"
    try:
        made.replace(path)
    except OSError:
        # A folder that is there is not replaced. Another process may have made the same; or it is damaged.
        if find(folder, stem) is None:
            remove([path])
            made.replace(path)
    return path


def remove(paths: Iterable[Path]) -> None:
    """Remove files and folders; what others have removed, or hold, is passed over."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _digest(path: Path) -> str:
    """Of the content of a file; of a folder, of the names and sizes of all files, which is what gets lost of one."""
    if not path.is_dir():
        content = path.read_bytes()
    else:
        files = (file for file in path.rglob("*") if file.is_file())
        content = "\n".join(
            sorted(f"{file.relative_to(path).as_posix()} {file.stat().st_size}" for file in files)
        ).encode()
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
