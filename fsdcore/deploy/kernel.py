"""The compiled kernel for a worker's machine, from any other.

Compiled by a compiler for all machines that comes from the package index, in a folder that is gone afterwards; so it
takes no compiler, no headers of Python, and no Linux to deploy.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fsdcore.deploy.fetching import Target, called, fetch, kept
from fsdcore.errors import DeploymentError
from fsdcore.record.observer import Observer

# Where it lies in a package.
KERNEL = "fsdcore/kernels/_native.abi3.so"
_SOURCES = Path(__file__).parents[1] / "kernels"
_FLAGS = _SOURCES / "flags.txt"
_COMPILER = Path(__file__).with_name("compiler.txt")
# Runs on any Linux since 2014, whatever the target's.
_MACHINES = {"x86_64": "x86_64-linux-gnu.2.17", "arm64": "aarch64-linux-gnu.2.17"}


def compiled_kernel(target: Target, folder: Path, observer: Observer) -> Path:
    """The kernel for `target`, compiled or found in `folder`.

    `DeploymentError` if the compiler cannot be had or fails.
    """
    return kept(
        folder, f"kernel-{_key(target)}", lambda scratch: _compile(target, scratch), "compiling the kernel", observer
    )


def _flags() -> list[str]:
    """Those of the kernel that is installed, too."""
    return _FLAGS.read_text(encoding="utf-8").split()


def _key(target: Target) -> str:
    digest = hashlib.sha256(_MACHINES[target.machine].encode())
    for source in (_COMPILER, *sorted([*_SOURCES.glob("*.[ch]"), _FLAGS])):
        content = source.read_bytes()
        digest.update(f"{source.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def _compile(target: Target, scratch: Path) -> Path:
    fetch(_COMPILER, scratch / "compiler", "the compiler of the kernel")
    made = scratch / "made.so"
    command = [str(scratch / "compiler" / "ziglang" / "zig"), "cc", "-target", _MACHINES[target.machine], *_flags()]
    command += ["-shared", "-fPIC", "-s", str(_SOURCES / "_native.c"), "-lm", "-o", str(made)]
    cache = str(scratch / "cache")
    environ = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    # It has files of its own.
    environ.pop("ZIG_LIB_DIR", None)
    done = called(command, scratch, environ)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["the compiler gave no reason"]
        raise DeploymentError(f"the kernel cannot be compiled for {target}: {lines[0]}")
    return made
