"""Arrays in the files of numpy, ``.npy`` and ``.npz``: sizes are checked before anything is allocated."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from fsdcore.decoding import UNPACK_VARIABLE, unpack_limit
from fsdcore.errors import FormatError, InputError
from fsdcore.files import MARK, PathLike, first_line, read_document

_GZIP = b"\x1f\x8b"

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
        raise FormatError(too_much(limit), file=file)
    return text.removeprefix(MARK)


def too_much(limit: int) -> str:
    """What to say of a file that unpacks to more than it may."""
    return f"unpacks to more than {limit >> 20:,} MiB; if it is meant to, set {UNPACK_VARIABLE}, in MiB, to more"


class Archive(Mapping[str, npt.NDArray[Any]]):
    """The arrays of an ``.npz``, each read when it is asked for, with its size checked before; as a context manager.

    All that are read may together unpack to `limit` bytes, what `unpack_limit` allows the file. `InputError` for one
    that cannot be read. Nothing is unpickled.
    """

    def __init__(self, path: PathLike) -> None:
        with _unreadable():
            self._zip = zipfile.ZipFile(path)
            self._left = self.limit = unpack_limit(os.path.getsize(path))

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
                raise InputError(too_much(self.limit))
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
        array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        if dtype.kind == "U" and _largest_code(array) > sys.maxunicode:
            raise ValueError("it has text that is not Unicode")
        return array


def _largest_code(text: npt.NDArray[np.str_]) -> int:
    """Its largest code point, which numpy does not look at before it makes the text one of Python."""
    codes = np.frombuffer(text.tobytes(), np.dtype(np.uint32).newbyteorder(text.dtype.byteorder))
    return int(codes.max(initial=0))


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except UNREADABLE as error:
        # Of a file that is none of its own, numpy says that it may be a pickle, and how to have it run.
        foreign = isinstance(error, zipfile.BadZipFile) or "magic string" in str(error)
        said = "is not a file of numpy" if foreign else f"cannot be read by numpy: {first_line(error)}"
        raise InputError(said) from error
