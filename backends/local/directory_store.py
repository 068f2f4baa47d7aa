"""Objects as files below a directory: they outlive the process, and several processes may share them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fsdcore.capabilities import StoreCapabilities
from fsdcore.errors import AccessDeniedError, KeyMissingError, PreconditionError, StoreError
from fsdcore.store import Store, check_key

__all__ = ["DirectoryStore"]

# Files end in this, folders do not: the keys ``a`` and ``a/b`` can both be there.
_SUFFIX = ".object"
_UNFINISHED = ".unfinished-"


@contextmanager
def _translated(key: str) -> Iterator[None]:
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


class DirectoryStore(Store):
    """Each object is a file; a write goes to a file of its own first and takes the name at once.

    The directory is made when first written to.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root).expanduser()

    @property
    def capabilities(self) -> StoreCapabilities:
        return StoreCapabilities(durable=True, shared=True)

    def _file(self, key: str) -> Path:
        return self._root / (check_key(key) + _SUFFIX)

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        file = self._file(key)
        try:
            # Outside the translation: a folder that cannot be made is no missing key.
            file.parent.mkdir(parents=True, exist_ok=True)
            self._write(file, data, key, if_absent)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            raise StoreError(f"{self._root} cannot hold objects: {error}") from error
        except PermissionError as error:
            raise AccessDeniedError(f"no permission for {error.filename}") from error

    def _write(self, file: Path, data: bytes, key: str, if_absent: bool) -> None:
        handle, unfinished = tempfile.mkstemp(prefix=_UNFINISHED, dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            with _translated(key):
                if if_absent:
                    os.link(unfinished, file)
                else:
                    os.replace(unfinished, file)
        finally:
            Path(unfinished).unlink(missing_ok=True)

    def get(self, key: str) -> bytes:
        file = self._file(key)
        with _translated(key):
            return file.read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range from {start} of {length} bytes")
        file = self._file(key)
        with _translated(key), file.open("rb") as stream:
            stream.seek(start)
            return stream.read(length)

    def list(self, prefix: str) -> list[str]:
        folder = self._root / prefix.rpartition("/")[0]
        with _translated(prefix):
            files = [path for path in folder.rglob(f"*{_SUFFIX}") if path.is_file()]
        keys = (str(file.relative_to(self._root)).removesuffix(_SUFFIX) for file in files)
        return sorted(key for key in keys if key.startswith(prefix))

    def exists(self, key: str) -> bool:
        return self._file(key).is_file()

    def delete(self, keys: Iterable[str]) -> None:
        for key in [check_key(key) for key in keys]:
            file = self._file(key)
            with _translated(key):
                file.unlink(missing_ok=True)
            self._prune(file.parent)

    def _prune(self, folder: Path) -> None:
        """Remove folders that have become empty; one that is not, or is gone, stays as it is."""
        while folder not in (self._root, folder.parent):
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent
