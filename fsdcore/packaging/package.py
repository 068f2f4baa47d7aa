"""Deployment packages: the code of a worker and all it needs, as one zip, the same bytes for the same inputs.

Neutral of providers: a backend says for which machine, with which packages at which versions, and what of them a
worker never needs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import DeploymentError, InputError
from fsdcore.events import SILENT, Observer
from fsdcore.files import settled

__all__ = ["Package", "Recipe", "Target", "build_package", "cache_folder", "worker_requirements"]

Unneeded: TypeAlias = Callable[[PurePosixPath], bool]

# Raised when a package is built in another way from the same inputs.
_FORMAT = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)
# How many packages, and how many sets of libraries, the folder keeps: those that were used last.
_KEPT = 6
_SCRATCH = "making-"
_ABANDONED_SECONDS = 86_400.0
_CLIENT_ONLY = ("fsdcore/cli", "fsdcore/report", "fsdcore/testing", "fsdcore/packaging.py")
_FOLDERS = frozenset({"__pycache__", "include", "test", "tests"})
_RECORDS = frozenset({"RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json"})
# Compiled for one kind of machine.
_COMPILED = frozenset({".so", ".pyd", ".dylib"})
_ENDINGS = frozenset({".a", ".c", ".cpp", ".h", ".pxd", ".pyc", ".pyi", ".pyx"})
_ELF_MACHINES = {62: "x86_64", 183: "arm64"}
_PLATFORMS = {"x86_64": "x86_64", "arm64": "aarch64"}
_GLIBC = re.compile(rb"GLIBC_2\.(\d+)")
_COMPILE = (
    "import compileall, py_compile, sys; "
    "compileall.compile_dir(sys.argv[1], quiet=2, stripdir=sys.argv[1], "
    "invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
)


@dataclass(frozen=True)
class Target:
    """Where a worker runs: `python` such as ``3.13``, `machine` ``x86_64`` or ``arm64``, and Linux with `glibc` 2.x."""

    python: str
    machine: str
    glibc: int

    @property
    def is_here(self) -> bool:
        """Whether this interpreter is of the target's version, so that it can compile for it."""
        return self.python == f"{sys.version_info.major}.{sys.version_info.minor}"

    def __str__(self) -> str:
        return f"Python {self.python} on {self.machine} with glibc 2.{self.glibc}"


@dataclass(frozen=True)
class Recipe:
    """What goes into a package.

    `modules`: packages of this process, such as ``backends.local``, taken whole but for `excluded`, paths in the zip.
    `requirements`: all distributions, ``name==version``, those they depend on included.
    `unneeded`: says of a path in the zip whether workers can do without it.
    `largest_bytes`: the most that all files may have together.
    `texts`: further files and what is in them, such as lists for a service that installs distributions itself.
    """

    target: Target
    modules: tuple[str, ...]
    requirements: tuple[str, ...]
    excluded: tuple[str, ...] = ()
    unneeded: Unneeded = lambda path: False
    largest_bytes: int = 1 << 40
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Package:
    """A package that was built: `digest` is the sha256 of its bytes, `notices` are lines for the user."""

    path: Path
    digest: str
    zipped_bytes: int
    unzipped_bytes: int
    notices: tuple[str, ...] = ()


def worker_requirements(target: Target) -> tuple[str, ...]:
    """What every worker needs, at versions that have wheels for `target`."""
    # Later ones are built for glibc 2.27 and up only.
    arrays = ("numpy==2.4.6", "scipy==1.17.1") if target.glibc >= 28 else ("numpy==2.2.6", "scipy==1.16.3")
    standard = tuple(map(int, target.python.split("."))) >= (3, 14)
    zstd = () if standard else ("backports.zstd==1.8.0",)
    return (*arrays, "msgspec==0.22.0", "safetensors==0.8.0", *zstd)


def cache_folder() -> Path:
    """Where packages are kept between builds; `ConfigError` if no home folder is known."""
    return settled(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fsd-inference" / "packages"


def build_package(recipe: Recipe, folder: Path, observer: Observer = SILENT) -> Package:
    """Build the package, or find it in `folder`, where it is kept under a name made from all that goes into it.

    What has not been used for longest goes from `folder`, so that it does not grow without end.
    `DeploymentError` if the distributions cannot be had, `InputError` if the package is too large.
    """
    sources, notices = _sources(recipe)
    libraries = _libraries(recipe, folder, observer)
    files = {**_chosen(recipe, libraries), **sources}
    path = folder / f"package-{_key(recipe, sources, files)}.zip"
    if not path.exists():
        observer.progress("packing", 0, 1)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder) as scratch:
            _pack(recipe, files, Path(scratch), path)
        observer.progress("packing", 1, 1)
    if not recipe.target.is_here:
        notices.append(f"not compiled ahead, for want of Python {recipe.target.python} here: cold starts take longer")
    package = _measured(recipe, path, tuple(notices))
    _prune(folder, (path, libraries))
    return package


def _measured(recipe: Recipe, path: Path, notices: tuple[str, ...]) -> Package:
    with zipfile.ZipFile(path) as archive:
        unzipped = sum(entry.file_size for entry in archive.infolist())
    if unzipped > recipe.largest_bytes:
        raise InputError(f"the package has {unzipped:,} bytes unzipped, the most is {recipe.largest_bytes:,}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package(path, digest, path.stat().st_size, unzipped, notices)


def _key(recipe: Recipe, sources: dict[str, Path], files: dict[str, Path]) -> str:
    """Of the names of all files, and of the content of our own; that of the others follows from their versions."""
    digest = hashlib.sha256("\n".join([_libraries_key(recipe), *sorted(files)]).encode())
    for name, path in sorted(sources.items()):
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    for name, text in sorted(recipe.texts.items()):
        digest.update(f"{name} {len(text)}\n{text}".encode())
    return digest.hexdigest()[:32]


# The cache -------------------------------------------------------------------------------------------------


def _prune(folder: Path, used: tuple[Path, ...]) -> None:
    """Note that `used` were, and remove what was used least lately, and what a build that was killed left behind."""
    now = SYSTEM_CLOCK.wall()
    for path in used:
        # The time of the last use; that of the last change stays.
        os.utime(path, (now, path.stat().st_mtime))
    for pattern in ("package-*.zip", "libraries-*"):
        found = sorted(folder.glob(pattern), key=_last_use, reverse=True)
        _remove(path for path in found[_KEPT:] if path not in used)
    _remove(path for path in folder.glob(f"{_SCRATCH}*") if _last_use(path) < now - _ABANDONED_SECONDS)


def _last_use(path: Path) -> float:
    """In seconds of the wall clock; 0 if another process has just removed it."""
    try:
        return path.stat().st_atime
    except FileNotFoundError:
        return 0.0


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


# Our own code ----------------------------------------------------------------------------------------------


def _sources(recipe: Recipe) -> tuple[dict[str, Path], list[str]]:
    """The files of the modules by their path in the zip, and what to tell of those left out."""
    found: dict[str, Path] = {}
    notices = []
    for module in recipe.modules:
        for name, path in _files_of(module):
            if any(name == one or name.startswith(f"{one}/") for one in (*_CLIENT_ONLY, *recipe.excluded)):
                continue
            problem = _misfit(path, recipe.target) if path.suffix in _COMPILED else None
            if problem:
                notices.append(f"{name} is left out: {problem}; workers do without it")
            else:
                found[name] = path
    if "fsdcore" in recipe.modules and not any(Path(name).suffix in _COMPILED for name in found):
        notices.append(f"there is no compiled kernel for {recipe.target}: workers multiply with scipy, which is slower")
    return found, notices


def _files_of(module: str) -> Iterator[tuple[str, Path]]:
    """The files of a package and the ``__init__.py`` of those around it."""
    parts = module.split(".")
    for depth in range(1, len(parts)):
        yield "/".join([*parts[:depth], "__init__.py"]), _home(".".join(parts[:depth])) / "__init__.py"
    home = _home(module)
    for path in sorted(home.rglob("*")):
        inside = path.relative_to(home)
        if path.is_file() and "__pycache__" not in inside.parts and path.suffix not in _ENDINGS:
            yield "/".join([*parts, *inside.parts]), path


def _home(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DeploymentError(f"there is no package {module!r} to put into the deployment package")
    return Path(next(iter(spec.submodule_search_locations)))


def _misfit(library: Path, target: Target) -> str | None:
    """Why a compiled module cannot be used on `target`; None if it can."""
    content = library.read_bytes()
    if content[:4] != b"\x7fELF":
        return "not built for Linux"
    machine = _ELF_MACHINES.get(int.from_bytes(content[18:20], "little"), "another machine")
    if machine != target.machine:
        return f"built for {machine}, not {target.machine}"
    if "abi3" not in library.name and f"cpython-{target.python.replace('.', '')}-" not in library.name:
        return f"built for another version than Python {target.python}"
    needed = max((int(minor) for minor in _GLIBC.findall(content)), default=0)
    return f"needs glibc 2.{needed}, the target has 2.{target.glibc}" if needed > target.glibc else None


# The distributions -----------------------------------------------------------------------------------------


def _libraries_key(recipe: Recipe) -> str:
    inputs = [str(_FORMAT), str(recipe.target), str(recipe.target.is_here), *sorted(recipe.requirements)]
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:32]


def _libraries(recipe: Recipe, folder: Path, observer: Observer) -> Path:
    """The distributions, installed for the target in a folder that is there whole or not at all."""
    home = folder / f"libraries-{_libraries_key(recipe)}"
    if not home.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        observer.progress("fetching packages", 0, 1)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder) as scratch:
            made = Path(scratch) / "made"
            _install(recipe, made)
            if not home.is_dir():
                made.rename(home)
        observer.progress("fetching packages", 1, 1)
    return home


def _install(recipe: Recipe, folder: Path) -> None:
    if not recipe.requirements:
        folder.mkdir()
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-deps", "--no-compile"]
    command += ["--only-binary", ":all:", "--target", str(folder), *_platform(recipe.target), *recipe.requirements]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise DeploymentError(
            "the packages of a worker are fetched by pip, which is not in this environment; run: "
            f"{sys.executable} -m ensurepip, or: uv pip install pip"
        )
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module" in line]
    reason = (lines or done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
    raise DeploymentError(f"the packages of a worker ({recipe.target}) cannot be had: {reason}")


def _platform(target: Target) -> list[str]:
    """The options that make pip choose wheels for the target instead of this machine, the newest kind first."""
    machine = _PLATFORMS[target.machine]
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(target.glibc, 16, -1)]
    tag = f"cp{target.python.replace('.', '')}"
    options = ["--implementation", "cp", "--python-version", target.python]
    for name in (*names, f"manylinux2014_{machine}"):
        options += ["--platform", name]
    for abi in (tag, "abi3", "none"):
        options += ["--abi", abi]
    return options


def _chosen(recipe: Recipe, libraries: Path) -> dict[str, Path]:
    """The files of the distributions that go into the zip, by their path there."""
    found = {}
    for source in libraries.rglob("*"):
        inside = PurePosixPath(source.relative_to(libraries).as_posix())
        if source.is_file() and not _needless(inside) and not recipe.unneeded(inside):
            found[str(inside)] = source
    return found


def _needless(path: PurePosixPath) -> bool:
    """Whether no worker needs a file of a distribution, whatever the backend."""
    top = path.parts[0]
    if top == "bin" or top.endswith(".dist-info"):
        return top == "bin" or path.name in _RECORDS
    # Of tests, packages import what is not a test itself: numpy.testing does.
    tests = bool(_FOLDERS.intersection(path.parts[:-1])) and not (path.name.startswith("_") and path.suffix == ".py")
    return tests or path.suffix in _ENDINGS or path.name == "conftest.py"


# The zip ---------------------------------------------------------------------------------------------------


def _pack(recipe: Recipe, files: dict[str, Path], scratch: Path, path: Path) -> None:
    tree = scratch / "tree"
    for name, source in files.items():
        _copy(source, tree / name)
    for name, text in recipe.texts.items():
        (tree / name).write_text(text, encoding="utf-8", newline="")
    if recipe.target.is_here:
        _compile(tree)
    _write_zip(tree, scratch / "made.zip")
    (scratch / "made.zip").replace(path)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _compile(tree: Path) -> None:
    """Compile ahead: functions run from a read-only folder, so each cold start would compile everything again."""
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    subprocess.run([sys.executable, "-I", "-c", _COMPILE, str(tree)], env=environ, check=False, capture_output=True)


def _write_zip(tree: Path, path: Path) -> None:
    """All files below `tree`, in the order of their names, with one time and one mode for all."""
    files = {source.relative_to(tree).as_posix(): source for source in tree.rglob("*") if source.is_file()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, files[name].read_bytes(), zipfile.ZIP_DEFLATED)
