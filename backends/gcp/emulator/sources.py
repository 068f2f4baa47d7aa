"""From an uploaded zip to a folder that can run: what the build of a function does, but for installing packages."""

from __future__ import annotations

import io
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

__all__ = ["BuildError", "build"]

_MOST_BYTES = 500_000_000


class BuildError(Exception):
    """The source cannot be built; the text is what the operation ends with."""


def build(archive: bytes, folder: Path) -> Path:
    """Unpack `archive` into `folder`, and return it.

    Packages are not installed: the interpreter that runs this must have all that ``requirements.txt`` asks for.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            if sum(member.file_size for member in packed.infolist()) > _MOST_BYTES:
                raise BuildError(f"Build failed: the source is larger than {_MOST_BYTES} bytes")
            packed.extractall(folder)
    except zipfile.BadZipFile as error:
        raise BuildError(f"Build failed: the source is not a zip archive: {error}") from error
    if not (folder / "main.py").is_file():
        raise BuildError("Build failed: missing main.py in the source")
    _check_requirements(folder / "requirements.txt")
    return folder


def _check_requirements(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    for line in lines:
        text = line.partition("#")[0].strip()
        # Options and files are for pip alone.
        if text and not text.startswith("-"):
            _check_requirement(text)


def _check_requirement(text: str) -> None:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise BuildError(f"Build failed: requirements.txt: {text!r}: {error}") from error
    if requirement.marker is not None and not requirement.marker.evaluate():
        return
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError as error:
        raise BuildError(f"Build failed: {text} is not installed on this machine") from error
    if not requirement.specifier.contains(found, prereleases=True):
        raise BuildError(f"Build failed: {text}: this machine has version {found}")
