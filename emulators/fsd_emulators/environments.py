"""Programs that need other versions of packages than the project has: each in an environment of its own, made once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fsdcore.errors import MissingExtraError, ServerError


def tell_stderr(text: str) -> None:
    """Tell whoever started the program."""
    sys.stderr.write(f"{text}\n")


def environment_python(name: str, requirements: Path, tell: Callable[[str], None]) -> Path:
    """The Python of the environment that has `requirements`, made in the cache folder if it is not there yet.

    `tell` hears of that, since it takes a while. `ServerError` if it cannot be made.
    """
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = _cache_folder() / f"{name}-{digest}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_suffix(".lock")):
            if not folder.exists():
                tell(f"making an environment for {name} in {folder}, once")
                _make(folder, requirements)
    except OSError as error:
        raise ServerError(f"the environment of {name} cannot be made: {error}") from error
    return folder / "bin" / "python"


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fsd-inference" / "emulators"


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait for any other process that is within; what holds the lock and dies lets go of it."""
    with lock.open("w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _make(folder: Path, requirements: Path) -> None:
    """All of it or nothing: what a killed process left behind is made anew."""
    scratch = folder.with_suffix(".unfinished")
    shutil.rmtree(scratch, ignore_errors=True)
    _run("venv", "--relocatable", "--python", sys.executable, scratch)
    _run("pip", "install", "--python", scratch / "bin" / "python", "--requirement", requirements)
    scratch.rename(folder)


def _run(*arguments: str | Path) -> None:
    from uv import find_uv_bin

    try:
        command = [find_uv_bin(), *map(str, arguments), "--quiet"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MissingExtraError("the program uv is not installed; run: pip install uv") from error
    if done.returncode:
        raise ServerError(f"uv {arguments[0]} failed: {done.stderr.strip() or f'code {done.returncode}'}")
