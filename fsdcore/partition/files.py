"""Partitions as ``.npz`` files."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np

from fsdcore.errors import FormatError, PlanError
from fsdcore.formats.files import replacing
from fsdcore.partition.base import Partition

__all__ = ["load_partition", "save_partition"]


def save_partition(path: str | os.PathLike[str], partition: Partition) -> None:
    """Write `partition`; the file appears whole or not at all."""
    kind = np.uint16 if partition.workers <= 2**16 else np.uint32
    with replacing(path) as unfinished, unfinished.open("wb") as stream:
        np.savez_compressed(
            stream,
            owners=np.concatenate(partition.owners).astype(kind),
            widths=np.array([owners.size for owners in partition.owners], np.int64),
            about=np.array([str(partition.workers), partition.method, str(partition.seed), partition.fingerprint]),
        )


def load_partition(path: str | os.PathLike[str]) -> Partition:
    """What `save_partition` wrote; `FormatError` if the file is anything else. Nothing is unpickled."""
    file = os.fspath(path)
    try:
        with np.load(file, allow_pickle=False) as archive:
            owners, widths, about = (archive[name] for name in ("owners", "widths", "about"))
        return _partition(owners, widths, [str(word) for word in about])
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError, PlanError) as error:
        raise FormatError(f"not a partition file: {error}", file=file) from error


def _partition(owners: np.ndarray[Any, Any], widths: np.ndarray[Any, Any], about: list[str]) -> Partition:
    sound = owners.ndim == widths.ndim == 1 and widths.size > 1 and widths.dtype == np.int64 and len(about) == 4
    if not sound or widths.min() < 0 or widths.sum() != owners.size or owners.dtype.kind != "u":
        raise ValueError("its arrays do not fit together")
    workers, method, seed, fingerprint = about
    parts = np.split(owners.astype(np.int32), np.cumsum(widths)[:-1])
    return Partition(int(workers), tuple(parts), method, int(seed), fingerprint)
