"""Objects as files below a directory: they outlive the process, and several processes may share them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fsdcore.contracts.limits import StoreCapabilities
from fsdcore.contracts.store import Store, check_key
from fsdcore.errors import AccessDeniedError, KeyMissingError, PreconditionError, StoreError
from fsdcore.files import first_line, new_file, settled


class MemoryStore(Store):
    """A dictionary with the manners of a store."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> StoreCapabilities:
        return StoreCapabilities()

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        check_key(key)
        with self._lock:
            if if_absent and key in self._objects:
                raise PreconditionError(f"there is an object at {key!r} already")
            self._objects[key] = bytes(data)

    def get(self, key: str) -> bytes:
        try:
            return self._objects[check_key(key)]
        except KeyError:
            raise KeyMissingError(f"there is no object at {key!r}") from None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if start < 0 or length < 0:
            raise ValueError(f"a range from {start} of {length} bytes")
        return self.get(key)[start : start + length]

    def list(self, prefix: str) -> list[str]:
        with self._lock:
            return sorted(key for key in self._objects if key.startswith(prefix))

    def exists(self, key: str) -> bool:
        return key in self._objects

    def delete(self, keys: Iterable[str]) -> None:
        doomed = [check_key(key) for key in keys]
        with self._lock:
            for key in doomed:
                self._objects.pop(key, None)


# Files end in this, folders do not: the keys ``a`` and ``a/b`` can both be there.
_SUFFIX = ".object"
_UNFINISHED = ".unfinished-"
# No key has a backslash, so these endings of folder names are free: a part of a key that goes on in the next folder,
# being too long for one name, and a folder that would look like a file.
_GOES_ON = "\\"
_FOLDER = "\\."
_LONGEST_NAME = 200
# How often a folder that another removes in between is made again.
_ATTEMPTS = 100


def _names(key: str) -> list[str]:
    """The folders and the file that hold the object at `key`."""
    names: list[str] = []
    for part in key.split("/"):
        cuts = range(0, len(part), _LONGEST_NAME)
        *first, last = (part[cut : cut + _LONGEST_NAME] for cut in cuts)
        names += [piece + _GOES_ON for piece in first]
        names.append(last + _FOLDER if last.endswith(_SUFFIX) else last)
    names[-1] = names[-1].removesuffix(_FOLDER) + _SUFFIX
    return names


def _key(names: Sequence[str]) -> str:
    """The key whose `_names` these are."""
    parts = (
        name.removesuffix(_GOES_ON) if name.endswith(_GOES_ON) else f"{name.removesuffix(_FOLDER)}/" for name in names
    )
    return "".join(parts).removesuffix("/").removesuffix(_SUFFIX)


def _raise_unless_gone(error: OSError) -> None:
    # A folder that another removes while we look holds nothing.
    if not isinstance(error, FileNotFoundError):
        raise error


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
        raise StoreError(f"{key!r}: {first_line(error)}") from error


class DirectoryStore(Store):
    """Each object is a file; a write goes to a file of its own first and takes the name at once.

    The directory is made when first written to.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = settled(root)

    @property
    def capabilities(self) -> StoreCapabilities:
        return StoreCapabilities()

    def _file(self, key: str) -> Path:
        return self._root.joinpath(*_names(check_key(key)))

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        file = self._file(key)
        try:
            # Outside the translation: a folder that cannot be made is no missing key.
            handle, unfinished = self._begin(file.parent)
            self._write(handle, unfinished, file, data, key, if_absent)
        except PermissionError as error:
            raise AccessDeniedError(f"no permission for {error.filename}") from error
        except OSError as error:
            raise StoreError(f"{self._root} cannot hold objects: {first_line(error)}") from error

    def _begin(self, folder: Path) -> tuple[int, str]:
        """A new file in `folder`, which another's `delete` may remove between the steps as long as it is empty."""
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError, FileExistsError):
                return self._make(folder)
        return self._make(folder)

    def _make(self, folder: Path) -> tuple[int, str]:
        folder.mkdir(parents=True, exist_ok=True)
        return new_file(folder, _UNFINISHED)

    def _write(self, handle: int, unfinished: str, file: Path, data: bytes, key: str, if_absent: bool) -> None:
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
            # Python makes room for what is asked for, not for what is there.
            size = os.fstat(stream.fileno()).st_size
            stream.seek(min(start, size))
            return stream.read(min(length, size))

    def list(self, prefix: str) -> list[str]:
        folder = self._folder_of(prefix)
        if folder is None:
            return []
        with _translated(prefix):
            files = [
                Path(where, name)
                for where, _, names in os.walk(folder, onerror=_raise_unless_gone)
                for name in names
                if name.endswith(_SUFFIX)
            ]
        keys = (_key(file.relative_to(self._root).parts) for file in files)
        return sorted(key for key in keys if key.startswith(prefix))

    def _folder_of(self, prefix: str) -> Path | None:
        """The folder below which all keys with `prefix` lie; None if no key can begin so, such as with ``../``."""
        above = prefix.rpartition("/")[0]
        if "/" not in prefix:
            return self._root
        try:
            check_key(above)
        except ValueError:
            return None
        return self._root.joinpath(*_names(f"{above}/any")[:-1])

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
