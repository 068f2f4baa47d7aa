"""What all readers of numbers share: how much they unpack, and arrays that scipy may be given."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from fsdcore.errors import FormatError, InputError
from fsdcore.files import MARK, PathLike, first_line, read_document
from fsdcore.unpacking import UNPACK_VARIABLE, unpack_limit

__all__ = ["MOST_NEURONS", "UNREADABLE", "Archive", "check_csr", "read_array", "read_bytes"]

_GZIP = b"\x1f\x8b"
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


def read_bytes(path: PathLike) -> bytes:
    """The content of a file of text, unpacked where it is packed by gzip or its name ends in ``.gz``.

    The mark that some editors begin UTF-8 with is dropped. `FormatError` if the file cannot be read, or unpacks to
    more than `unpack_limit` allows.
    """
    file = os.fspath(path)
    content = read_document(file)
    if not (file.endswith(".gz") or content.startswith(_GZIP)):
        return content
    limit = unpack_limit(len(content))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            text = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"cannot be read: {first_line(error)}", file=file) from error
    if len(text) > limit:
        raise FormatError(_too_much(limit), file=file)
    return text.removeprefix(MARK)


class Archive(Mapping[str, npt.NDArray[Any]]):
    """The arrays of an ``.npz``, each read when it is asked for, with its size checked before; as a context manager.

    All that are read may together unpack to what `unpack_limit` allows the file. `InputError` for one that cannot be
    read. Nothing is unpickled.
    """

    def __init__(self, path: PathLike) -> None:
        with _unreadable():
            self._zip = zipfile.ZipFile(path)
            self._left = self._limit = unpack_limit(os.path.getsize(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def __iter__(self) -> Iterator[str]:
        return (name.removesuffix(".npy") for name in self._zip.namelist())

    def __len__(self) -> int:
        return len(self._zip.namelist())

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self:
            raise InputError(f"has no array {name!r}")
        with _unreadable():
            member = self._zip.getinfo(f"{name}.npy")
            self._left -= member.file_size
            if self._left < 0:
                raise InputError(_too_much(self._limit))
            with self._zip.open(member) as stream:
                return read_array(stream, member.file_size)


def read_array(stream: IO[bytes], size: int) -> npt.NDArray[Any]:
    """The array of an ``.npy`` of `size` bytes; `InputError` if its header names more. Nothing is unpickled."""
    with _unreadable():
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"it has an array of version {version[0]}.{version[1]}, which is none of numbers")
        shape, _, dtype = readers[version](stream)
        named = stream.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError("it holds objects of Python, which are never read")
        if named > size:
            raise ValueError(f"its header names {named:,} bytes, {size:,} are there")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"cannot be read by numpy: {first_line(error)}") from error


def _too_much(limit: int) -> str:
    return f"unpacks to more than {limit >> 20:,} MiB; if it is meant to, set {UNPACK_VARIABLE}, in MiB, to more"


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
