"""Files and folders that are kept between builds, under names that say what is in them.

What is damaged, or was taken away in part, is not found, and so is made anew.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from fsdcore.record.observer import Observer

__all__ = ["SCRATCH", "find", "keep", "kept", "remove"]

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
