"""What all readers and writers share: whole files or none."""

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

from fsdcore.errors import FormatError, InputError

__all__ = ["UNREADABLE", "PathLike", "first_line", "read_bytes", "replacing"]

PathLike = str | os.PathLike[str]

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


def first_line(error: BaseException) -> str:
    """What `error` says, as one line; the name of its class where it says nothing."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0].strip() if text.strip() else type(error).__name__


def read_bytes(path: PathLike) -> bytes:
    """The content of a file, unpacked where it is packed by gzip; `FormatError` if it cannot be read."""
    file = os.fspath(path)
    try:
        content = Path(file).read_bytes()
        packed = content.startswith(_GZIP) or file.endswith(".gz")
        return gzip.decompress(content) if packed else content
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
