"""Objects as files of one directory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from fsdcore.contracts.limits import StoreCapabilities
from fsdcore.contracts.store import Store, check_key
from fsdcore.errors import AccessDeniedError, KeyMissingError, PreconditionError, StoreError

CAPABILITIES = StoreCapabilities()
# A quoted key has no "=": a name that ends in one is an object, one that begins with it is not finished.
_END = "="
_LONGEST_NAME = 200


def _write_aside(folder: Path, data: bytes) -> Path:
    """Write `data` to a new file of `folder`, whole before it gets the name under which others look for it."""
    handle, name = tempfile.mkstemp(prefix=_END, suffix="~", dir=folder)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    return Path(name)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """The one place where errors of the file system become errors of the framework."""
    try:
        yield
    except FileNotFoundError:
        raise KeyMissingError(f"there is no object at {key!r}") from None
    except FileExistsError:
        raise PreconditionError(f"there is an object at {key!r} already") from None
    except PermissionError as error:
        raise AccessDeniedError(f"no permission for {error.filename}") from error
    except OSError as error:
        raise StoreError(f"{key!r}: {error}") from error


def _refuse(error: OSError) -> None:
    raise error


class FilesystemStore(Store):
    """Each object is a file of `root`, which exists; a key too long for one name goes on in folders."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def capabilities(self) -> StoreCapabilities:
        return CAPABILITIES

    def _file(self, key: str) -> Path:
        name = quote(check_key(key), safe="")
        cuts = range(0, len(name), _LONGEST_NAME)
        return Path(f"{self._root.joinpath(*(name[cut : cut + _LONGEST_NAME] for cut in cuts))}{_END}")

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        file = self._file(key)
        with _translated(key):
            if file.parent != self._root:
                file.parent.mkdir(parents=True, exist_ok=True)
            aside = _write_aside(file.parent, data)
            try:
                # Both are atomic: a link fails where there is a file, a replacement takes its place.
                (os.link if if_absent else os.replace)(aside, file)
            finally:
                aside.unlink(missing_ok=True)

    def get(self, key: str) -> bytes:
        with _translated(key):
            return self._file(key).read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range from {start} of {length} bytes")
        with _translated(key), self._file(key).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(min(start, size))
            return stream.read(min(length, size))

    def list(self, prefix: str) -> list[str]:
        with _translated(prefix):
            files = [Path(at, name) for at, _, names in os.walk(self._root, onerror=_refuse) for name in names]
        parts = (file.relative_to(self._root).parts for file in files if file.name.endswith(_END))
        keys = (unquote("".join(names).removesuffix(_END)) for names in parts)
        return sorted(key for key in keys if key.startswith(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with _translated(key):
                self._file(key).unlink(missing_ok=True)
