"""A store that counts the requests made of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fsdcore.contracts.limits import StoreCapabilities
from fsdcore.contracts.store import Store

__all__ = ["CountingStore"]


class CountingStore(Store):
    """Passes everything on to `inner`, and tells `count` of each ``puts``, ``gets`` and ``lists``.

    Requests are counted as they are made, whether they succeed or not: services bill both. Closing it leaves the
    inner store open.
    """

    def __init__(self, inner: Store, count: Callable[[str], None]) -> None:
        self._inner, self._count = inner, count

    @property
    def capabilities(self) -> StoreCapabilities:
        return self._inner.capabilities

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        self._count("puts")
        self._inner.put(key, data, if_absent)

    def get(self, key: str) -> bytes:
        self._count("gets")
        return self._inner.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self._count("gets")
        return self._inner.get_range(key, start, length)

    def list(self, prefix: str) -> list[str]:
        self._count("lists")
        return self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        self._inner.delete(keys)
