"""Prices, models and conditions: TOML files that come with the project and are known by a name, or the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple, TypeVar

from fsdcore.decoding import from_toml
from fsdcore.errors import InputError
from fsdcore.files import read_text
from fsdcore.text import suggestion

_Kind = TypeVar("_Kind")


class Shelf(NamedTuple):
    """The files of `folder`, by their paths without ``.toml``; `shared` is the name of what others refer to."""

    folder: Traversable
    missing: str
    shared: str = ""

    def names(self) -> list[str]:
        """All but what is shared."""
        return sorted(name for name in _names(self.folder) if name.rpartition("/")[2] != self.shared)

    def load(self, name: str, kind: type[_Kind]) -> _Kind:
        """What has that name, or is in that file if it ends in ``.toml``.

        `InputError` that names it for what is not there, or is not of the `kind`.
        """
        if name.endswith(".toml"):
            return _decoded(file_of(name), read_text(name), kind)
        if name not in self.names():
            raise InputError(f"{self.missing} {name!r}{suggestion(name, self.names())}")
        return self.read(name, kind)

    def read(self, name: str, kind: type[_Kind]) -> _Kind:
        """What has that name, which is there."""
        return _decoded(name, self.folder.joinpath(*f"{name}.toml".split("/")).read_text(encoding="utf-8"), kind)


def file_of(name: str) -> str:
    """What errors call what was loaded."""
    return Path(name).name if name.endswith(".toml") else name


def _names(folder: Traversable, before: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _names(entry, f"{before}{entry.name}/")
        elif entry.name.endswith(".toml"):
            yield before + entry.name.removesuffix(".toml")


def _decoded(file: str, text: str, kind: type[_Kind]) -> _Kind:
    return from_toml(text, kind, lambda reason: InputError(f"{file}: {reason}"))
