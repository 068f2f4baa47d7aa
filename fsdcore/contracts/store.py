"""The contract of an object store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from fsdcore.contracts.limits import StoreCapabilities
from fsdcore.errors import InputError

_FORBIDDEN = frozenset({"", ".", ".."})


def check_key(key: str) -> str:
    """Return `key` if every store can hold it, else raise `InputError`, which is a `ValueError`.

    A key is 1 to 900 printable ASCII characters, parts joined by ``/``, no part empty, ``.`` or ``..``.
    """
    sound = 0 < len(key) <= 900 and key.isascii() and key.isprintable() and "\\" not in key
    if not sound or _FORBIDDEN.intersection(key.split("/")):
        raise InputError(f"not a usable object key: {key!r}")
    return key


class Store(ABC):
    """Keeps objects: whole byte strings under keys.

    **Consistency.** A `get` or `list` that begins after a `put` or `delete` has returned sees it. An object is
    seen whole or not at all; two writers of one key leave one of the two objects.

    **Blocking.** Every call blocks until the service has answered. Calls may be made from several threads at
    once.

    **Errors.** `KeyMissingError`, `PreconditionError`, `AccessDeniedError` are different things and raised as
    such; everything else the service says becomes a plain `StoreError`. A call that raised may have taken
    effect; all calls but ``put(if_absent=True)`` may be repeated safely.

    **Keys** are as `check_key` says, else `InputError`.
    """

    @property
    @abstractmethod
    def capabilities(self) -> StoreCapabilities:
        """What this store does; does not change."""

    @abstractmethod
    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        """Write the whole object. With `if_absent`, raise `PreconditionError` if the key exists."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The whole object; `KeyMissingError` if there is none."""

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Bytes ``[start, start + length)``, fewer where the object ends sooner, none past its end.

        `KeyMissingError` if there is no object; `ValueError` if `start` or `length` is negative.
        """

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """All keys that begin with the text `prefix`, sorted; none is not an error."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Remove the objects; a key that has none is not an error."""

    def exists(self, key: str) -> bool:
        """Whether there is an object at `key`."""
        return key in self.list(key)

    def close(self) -> None:  # noqa: B027 - most stores hold nothing
        """Release what the client of the service holds. May be called twice."""


class CountingStore(Store):
    """Passes every call on to `inner`, and reports each of ``puts``, ``gets`` and ``lists`` to `count`.

    A request is counted when it is made, whether it succeeds or not, since services bill both. Closing this store
    leaves the inner one open.
    """

    def __init__(self, inner: Store, count: Callable[[str], None]) -> None:
        self._inner, self._count = inner, count

    @property
    def capabilities(self) -> StoreCapabilities:
        """Those of the inner store."""
        return self._inner.capabilities

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        """Counted as one of ``puts``, with `if_absent` too."""
        self._count("puts")
        self._inner.put(key, data, if_absent)

    def get(self, key: str) -> bytes:
        """Counted as one of ``gets``."""
        self._count("gets")
        return self._inner.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Counted as one of ``gets``, however short the range."""
        self._count("gets")
        return self._inner.get_range(key, start, length)

    def list(self, prefix: str) -> list[str]:
        """Counted as one of ``lists``, however many pages the store asks for."""
        self._count("lists")
        return self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        """Not counted; a record has no counter of deletions."""
        self._inner.delete(keys)
