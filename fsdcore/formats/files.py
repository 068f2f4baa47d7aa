"""What all readers and writers share: whole files or none, and arrays that scipy may be given."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
import tokenize
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsdcore.errors import FormatError, InputError

__all__ = ["MOST_NEURONS", "UNREADABLE", "PathLike", "check_csr", "first_line", "read_bytes", "replacing"]

PathLike = str | os.PathLike[str]

# Indices are int32 everywhere.
MOST_NEURONS = 2**31 - 1

# What numpy and zipfile raise on bytes that are not what they should be.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def first_line(error: BaseException) -> str:
    """What `error` says, as one line; the name of its class where it says nothing."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0].strip() if text.strip() else type(error).__name__


def read_bytes(path: PathLike) -> bytes:
    """The content of a file, unpacked where its name ends in ``.gz``; `FormatError` if it cannot be read."""
    file = os.fspath(path)
    try:
        content = Path(file).read_bytes()
        return gzip.decompress(content) if file.endswith(".gz") else content
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise FormatError(f"cannot be read: {first_line(error)}", file=file) from error


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A new name beside `path` to write to; it takes the place of `path` when the block ends well.

    A reader sees the old file or the whole new one. If the block fails nothing is left behind; what the
    operating system refused becomes a `FormatError`.
    """
    target = Path(path)
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        yield temporary
        os.replace(temporary, target)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise FormatError(f"cannot be written: {first_line(error)}", file=str(target)) from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()


def check_csr(indptr: npt.NDArray[Any], indices: npt.NDArray[Any], shape: tuple[int, int]) -> None:
    """`InputError` unless `indptr` and `indices` are a CSR structure of that shape.

    scipy reads and writes outside its arrays if they are not, so this comes before any matrix is built.
    """
    rows, columns = shape
    if not (0 <= rows <= MOST_NEURONS and 0 <= columns <= MOST_NEURONS):
        raise InputError(f"the shape ({rows}, {columns}) is out of range: sizes are 0 to {MOST_NEURONS}")
    for name, array in (("indptr", indptr), ("indices", indices)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise InputError(f"{name} must be one row of integers, not {array.dtype} of shape {array.shape}")
    _check_indptr(indptr, rows, indices.size)
    if indices.size and not (indices.min() >= 0 and indices.max() < columns):
        raise InputError(f"indices must be 0 to {columns - 1}, they are {indices.min()} to {indices.max()}")


def _check_indptr(indptr: npt.NDArray[Any], rows: int, entries: int) -> None:
    if indptr.size != rows + 1:
        raise InputError(f"indptr has {indptr.size} numbers, {rows} rows need {rows + 1}")
    if indptr[0] != 0 or indptr[-1] != entries:
        raise InputError(f"indptr must go from 0 to {entries}, it goes from {indptr[0]} to {indptr[-1]}")
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if falls.size:
        raise InputError(f"indptr must never fall, it does after row {falls[0]}")
