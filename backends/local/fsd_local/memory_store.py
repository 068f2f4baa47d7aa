"""Objects in the memory of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from fsdcore.contracts.limits import StoreCapabilities
from fsdcore.contracts.store import Store, check_key
from fsdcore.errors import KeyMissingError, PreconditionError

__all__ = ["MemoryStore"]


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
