"""Distributions from the package index, at the versions and hashes of a lock, by uv.

uv is a program of its own, which chooses wheels for any machine from any other, in an environment with pip or without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fsdcore.deploy.target import Target
from fsdcore.errors import DeploymentError

__all__ = ["fetch", "wheels_for"]

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
