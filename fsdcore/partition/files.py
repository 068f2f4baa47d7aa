"""Partitions as ``.npz`` files.

Three arrays: ``owners``, all boundaries one after the other, in the smallest unsigned type; ``widths`` int64, the
neurons of each boundary; ``about``, five words: format, workers, method, seed and the network's fingerprint.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from fsdcore.errors import FormatError, InputError
from fsdcore.files import PathLike, replacing
from fsdcore.network.formats.files import Archive
from fsdcore.partition.base import Partition

_FORMAT = "fsd-partition-1"
_NAMES = ("owners", "widths", "about")


def save_partition(path: PathLike, partition: Partition) -> None:
    """Write `partition`; the file appears whole or not at all. `FormatError` if it cannot be written."""
    about = (_FORMAT, str(partition.workers), partition.method, str(partition.seed), partition.fingerprint)
    with replacing(path) as unfinished, unfinished.open("r+b") as stream:
        np.savez_compressed(
            stream,
            owners=np.concatenate(partition.owners).astype(np.min_scalar_type(partition.workers - 1)),
            widths=np.array([owners.size for owners in partition.owners], np.int64),
            about=np.array(about),
        )


def load_partition(path: PathLike) -> Partition:
    """What `save_partition` wrote; `FormatError` naming the file if it is anything else. Nothing is unpickled."""
    try:
        return _partition(*_arrays(path))
    except InputError as error:
        raise FormatError(f"not a partition that can be read: {error.message}", file=str(path)) from error


def _arrays(path: PathLike) -> list[npt.NDArray[Any]]:
    with Archive(path) as arrays:
        return [arrays[name] for name in _NAMES]


def _partition(owners: npt.NDArray[Any], widths: npt.NDArray[Any], about: npt.NDArray[Any]) -> Partition:
    if about.shape != (5,) or about.dtype.kind != "U" or about[0] != _FORMAT:
        raise InputError(f"it is not marked as {_FORMAT}")
    _, workers, method, seed, fingerprint = (str(word) for word in about)
    _check_words(workers, method, seed, fingerprint)
    _check_owners(owners, widths, int(workers))
    parts = np.split(owners.astype(np.int32), np.cumsum(widths)[:-1])
    return Partition(int(workers), tuple(parts), method, int(seed), fingerprint)


def _check_words(workers: str, method: str, seed: str, fingerprint: str) -> None:
    sound = {
        "workers": re.fullmatch(r"[1-9][0-9]{0,8}", workers),
        "method": re.fullmatch(r"[ -~]{1,100}", method),
        "seed": re.fullmatch(r"-?[0-9]{1,20}", seed),
        "fingerprint": re.fullmatch(r"([0-9a-f]{64})?", fingerprint),
    }
    for name, match in sound.items():
        if match is None:
            raise InputError(f"its {name} is damaged")


def _check_owners(owners: npt.NDArray[Any], widths: npt.NDArray[Any], workers: int) -> None:
    if widths.ndim != 1 or widths.dtype.kind != "i" or widths.size < 2 or widths.min() < 0:
        raise InputError("its widths are not those of a network")
    if owners.ndim != 1 or owners.dtype.kind != "u":
        raise InputError(f"its owners are {owners.dtype} of shape {owners.shape}, not one row of ranks")
    # As Python numbers: a sum of hostile widths may pass 2^63.
    if sum(widths.tolist()) != owners.size:
        raise InputError(f"it has {owners.size} owners, which is not the sum of its widths")
    if owners.size and int(owners.max()) >= workers:
        raise InputError(f"it names rank {owners.max()}, the last is {workers - 1}")
