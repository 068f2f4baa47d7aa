"""From an uploaded zip to a folder that can run: what the build of a function does, but for installing packages."""

from __future__ import annotations

import io
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

_MOST_BYTES = 500_000_000
_HASH = "--hash="


class BuildError(Exception):
    """The source cannot be built; the text is what the operation ends with."""


def build(archive: bytes, folder: Path) -> Path:
    """Unpack `archive` into `folder`, and return it.

    Packages are not installed: the interpreter that runs this must have all that ``requirements.txt`` asks for, at any
    version where it is a lock with hashes.
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
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = [line.partition("#")[0].strip() for line in text.replace("\\\n", " ").splitlines()]
    # Options and files are for pip alone.
    wanted = [line for line in lines if line and not line.startswith("-")]
    locked = any(_HASH in line for line in wanted)
    for line in wanted:
        if locked and _HASH not in line:
            raise BuildError(f"Build failed: requirements.txt: {line} has no hash, and others have")
        _check_requirement(line.partition(_HASH)[0].strip(), any_version=locked)


def _check_requirement(text: str, any_version: bool) -> None:
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
    if not any_version and not requirement.specifier.contains(found, prereleases=True):
        raise BuildError(f"Build failed: {text}: this machine has version {found}")
