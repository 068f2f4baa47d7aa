"""Making a package: our own code and the distributions, chosen, compiled ahead and zipped, kept for the next time."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.deploy.fetching import COMPILED, SCRATCH, Target, fetch, kept, misfit, remove
from fsdcore.deploy.kernel import KERNEL, compiled_kernel
from fsdcore.errors import DeploymentError, InputError
from fsdcore.files import settled
from fsdcore.record.observer import SILENT, Observer

Unneeded: TypeAlias = Callable[[PurePosixPath], bool]

# Raised when a package is built in another way from the same inputs.
_FORMAT = 2
_EPOCH = (1980, 1, 1, 0, 0, 0)
# How many packages, and how many sets of libraries, the folder keeps: those that were used last.
_KEPT = 6
_ABANDONED_SECONDS = 86_400.0
# What a worker runs of the core: files and folders. All else is the client's.
_CORE = (
    "__init__.py",
    "arrays.py",
    "clock.py",
    "contracts",
    "decoding.py",
    "errors.py",
    "kernels",
    "loopback.py",
    "messages",
    "network/__init__.py",
    "network/activations.py",
    "plan",
    "record",
    "text.py",
    "turns.py",
    "worker",
)
_COMPILES_KERNEL = "fsdcore/kernels/flags.txt"
_FOLDERS = frozenset({"__pycache__", "include", "test", "tests"})
_RECORDS = frozenset({"RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json", "uv_cache.json"})
_ENDINGS = frozenset({".a", ".c", ".cpp", ".h", ".pxd", ".pyc", ".pyi", ".pyx"})
_COMPILE = (
    "import compileall, py_compile, sys; "
    "compileall.compile_dir(sys.argv[1], quiet=2, stripdir=sys.argv[1], "
    "invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
)


@dataclass(frozen=True)
class Recipe:
    """What goes into a package.

    `modules`: packages of this process, such as ``fsd_local``, taken but for `excluded`, paths in the zip.
    `lock`: a requirements file of all distributions with their hashes; None if there are none to fetch.
    `unneeded`: says of a path in the zip whether workers can do without it.
    `largest_bytes`: the most that all files may have together.
    `texts`: further files and what is in them, such as lists for a service that installs distributions itself.
    """

    target: Target
    modules: tuple[str, ...]
    lock: Path | None = None
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


def cache_folder() -> Path:
    """Where packages are kept between builds; `ConfigError` if no home folder is known."""
    return settled(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fsd-inference" / "packages"


def build_package(recipe: Recipe, folder: Path, observer: Observer = SILENT) -> Package:
    """Build the package, or find it in `folder`, where it is kept under a name made from all that goes into it.

    What has not been used for longest goes from `folder`, so that it does not grow without end.
    `DeploymentError` if the distributions cannot be had or the kernel cannot be compiled, `InputError` if the package
    is too large.
    """
    try:
        return _built(recipe, folder, observer)
    except OSError as error:
        raise DeploymentError(f"the package cannot be made in {folder}: {error}") from error


def _built(recipe: Recipe, folder: Path, observer: Observer) -> Package:
    sources, notices = _sources(recipe)
    if "fsdcore" in recipe.modules and KERNEL not in sources:
        sources[KERNEL] = compiled_kernel(recipe.target, folder, observer)
    libraries = _libraries(recipe, folder, observer)
    files = {**_chosen(recipe, libraries), **sources}
    stem = f"package-{_key(recipe, sources, files)}"
    path = kept(folder, stem, lambda scratch: _packed(recipe, files, scratch), "packing", observer)
    if not recipe.target.is_here:
        notices.append(f"not compiled ahead, for want of Python {recipe.target.python} here: cold starts take longer")
    package = _measured(recipe, path, tuple(notices))
    _prune(folder, (path, libraries, *(one for one in sources.values() if one.parent == folder)))
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
        # The time of the last use; that of the last change stays. A folder that only others may write to has none.
        with suppress(OSError):
            os.utime(path, (now, path.stat().st_mtime))
    for pattern in ("package-*.zip", "libraries-*", "kernel-*.so"):
        found = sorted(folder.glob(pattern), key=_last_use, reverse=True)
        remove(path for path in found[_KEPT:] if path not in used)
    remove(path for path in folder.glob(f"{SCRATCH}*") if _last_use(path) < now - _ABANDONED_SECONDS)


def _last_use(path: Path) -> float:
    """In seconds of the wall clock; 0 if another process has just removed it."""
    try:
        return path.stat().st_atime
    except FileNotFoundError:
        return 0.0


# Our own code ----------------------------------------------------------------------------------------------


def _sources(recipe: Recipe) -> tuple[dict[str, Path], list[str]]:
    """The files of the modules by their path in the zip, and what to tell of those left out."""
    found: dict[str, Path] = {}
    notices = []
    for module in recipe.modules:
        for name, path in _files_of(module):
            if not _is_of_worker(name) or _is_within(name, recipe.excluded):
                continue
            problem = misfit(path, recipe.target) if path.suffix in COMPILED else None
            if problem is None:
                found[name] = path
            elif module != "fsdcore":
                notices.append(f"{name} is left out: {problem}; workers do without it")
    return found, notices


def _is_of_worker(name: str) -> bool:
    core = name.removeprefix("fsdcore/")
    return core == name or (_is_within(core, _CORE) and name != _COMPILES_KERNEL)


def _is_within(name: str, places: Iterable[str]) -> bool:
    return any(name == one or name.startswith(f"{one}/") for one in places)


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


# The distributions -----------------------------------------------------------------------------------------


def _libraries_key(recipe: Recipe) -> str:
    locked = recipe.lock.read_text(encoding="utf-8") if recipe.lock else ""
    inputs = [str(_FORMAT), str(recipe.target), str(recipe.target.is_here), locked]
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:32]


def _libraries(recipe: Recipe, folder: Path, observer: Observer) -> Path:
    """The distributions, installed for the target in a folder that is there whole or not at all."""
    stem = f"libraries-{_libraries_key(recipe)}"
    return kept(folder, stem, lambda scratch: _fetched(recipe, scratch / "made"), "fetching packages", observer)


def _fetched(recipe: Recipe, folder: Path) -> Path:
    if recipe.lock is None:
        folder.mkdir()
    else:
        fetch(recipe.lock, folder, f"the packages of a worker ({recipe.target})", recipe.target)
    return folder


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
    if top in ("bin", ".lock") or top.endswith(".dist-info"):
        return not top.endswith(".dist-info") or path.name in _RECORDS
    # Of tests, packages import what is not a test itself: numpy.testing does.
    tests = bool(_FOLDERS.intersection(path.parts[:-1])) and not (path.name.startswith("_") and path.suffix == ".py")
    return tests or path.suffix in _ENDINGS or path.name == "conftest.py"


# The zip ---------------------------------------------------------------------------------------------------


def _packed(recipe: Recipe, files: dict[str, Path], scratch: Path) -> Path:
    tree = scratch / "tree"
    for name, source in files.items():
        _copy(source, tree / name)
    for name, text in recipe.texts.items():
        (tree / name).write_text(text, encoding="utf-8", newline="")
    if recipe.target.is_here:
        _compile(tree)
    _write_zip(tree, scratch / "made.zip")
    return scratch / "made.zip"


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
