"""What all readers of numbers share: text that may be packed, and what libraries raise."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tokenize
import zipfile
import zlib

from fsdcore.decoding import UNPACK_VARIABLE, unpack_limit
from fsdcore.errors import FormatError
from fsdcore.files import MARK, PathLike, first_line, read_document

__all__ = ["UNREADABLE", "read_bytes", "too_much"]

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
