"""Deployment packages: the same bytes for the same inputs, and nothing that a worker does not need."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from fsdcore.deploy import Package, Recipe, Target, build_package, kernel
from fsdcore.deploy import package as building
from fsdcore.deploy.fetching import remove
from fsdcore.errors import DeploymentError, InputError
from fsdcore.record.observer import Observer

HERE = Target(f"{sys.version_info.major}.{sys.version_info.minor}", "x86_64", 28)
ELSEWHERE = Target("3.14" if HERE.python != "3.14" else "3.13", "arm64", 34)
# One small distribution of pure Python stands for all.
LOCK = Path(__file__).with_name("six.txt")
RECIPE = Recipe(HERE, ("fsdcore", "fsd_local"), LOCK)


def names(package: Package) -> list[str]:
    with zipfile.ZipFile(package.path) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def package(folder: Path) -> Package:
    return build_package(RECIPE, folder)


def test_a_package_holds_what_a_worker_needs_and_no_more(package: Package) -> None:
    found = names(package)
    for needed in ("fsdcore/worker/worker.py", "fsd_local/backend.py", "six.py"):
        assert needed in found
    assert {"/".join(name.split("/")[:2]) for name in found if name.startswith("fsdcore/")} == {
        f"fsdcore/{each}"
        for each in (
            *("__init__.py", "arrays.py", "clock.py", "decoding.py", "errors.py", "loopback.py", "text.py", "turns.py"),
            *("__pycache__", "contracts", "kernels", "messages", "network", "plan", "record", "worker"),
        )
    }
    for needless in ("fsdcore/kernels/flags.txt", "fsdcore/network/network.py", "tests/", "fsd_aws/"):
        assert not any(name.startswith(needless) for name in found)
    assert package.notices == ()
    assert package.zipped_bytes == package.path.stat().st_size < package.unzipped_bytes


def test_a_package_is_the_same_bytes_wherever_it_is_built(package: Package, tmp_path: Path) -> None:
    again = build_package(RECIPE, tmp_path)
    assert again.digest == package.digest
    assert again.path.read_bytes() == package.path.read_bytes()


def test_a_package_is_built_once(package: Package, folder: Path) -> None:
    before = package.path.stat().st_mtime_ns
    assert build_package(RECIPE, folder) == package
    assert package.path.stat().st_mtime_ns == before


def test_the_code_is_compiled_ahead_for_this_python(package: Package, tmp_path: Path) -> None:
    assert f"fsdcore/worker/__pycache__/worker.{sys.implementation.cache_tag}.pyc" in names(package)
    with zipfile.ZipFile(package.path) as archive:
        archive.extractall(tmp_path)
    # No source, so that only what was compiled can be imported; it is taken whatever the time of the source is.
    (tmp_path / "six.py").write_text("broken(")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import six; print(six.__version__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1.17.0\n", "")


def test_for_another_python_nothing_is_compiled_and_that_is_told(folder: Path) -> None:
    package = build_package(Recipe(ELSEWHERE, ("fsd_local",), LOCK), folder)
    assert not any(name.endswith(".pyc") for name in names(package))
    assert package.notices[-1:] == (
        f"not compiled ahead, for want of Python {ELSEWHERE.python} here: cold starts take longer",
    )


def test_what_the_backend_does_without_is_left_out(package: Package, folder: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE, excluded=("fsd_local/stores.py",), unneeded=lambda path: path == PurePosixPath("six.py")
    )
    smaller = build_package(recipe, folder)
    assert smaller.path != package.path
    found = names(smaller)
    assert "six.py" not in found
    assert "fsd_local/stores.py" in names(package)
    assert "fsd_local/stores.py" not in found


def test_what_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(LOCK.read_text().replace("six==1.17.0", "six==0.0.999"))
    with pytest.raises(DeploymentError, match=r"six==0\.0\.999") as caught:
        build_package(dataclasses.replace(RECIPE, lock=lock), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("package-*")) == []


def test_a_package_that_is_too_large_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="bytes unzipped, the most is 1,000"):
        build_package(dataclasses.replace(RECIPE, largest_bytes=1_000), folder)


def test_a_module_of_another_system_is_left_out_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "fsd_backend_for_tests"
    home.mkdir()
    (home / "__init__.py").touch()
    (home / "fast.pyd").write_bytes(b"MZ" + bytes(30))
    monkeypatch.syspath_prepend(tmp_path)
    package = build_package(Recipe(HERE, ("fsd_backend_for_tests",), LOCK), tmp_path / "cache")
    assert "fsd_backend_for_tests/__init__.py" in names(package)
    assert "fsd_backend_for_tests/fast.pyd" not in names(package)
    assert package.notices == (
        "fsd_backend_for_tests/fast.pyd is left out: not built for Linux; workers do without it",
    )


def test_a_package_has_a_kernel_though_the_installed_one_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(target: Target, folder: Path, observer: Observer) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kernel-x.so").write_text(f"for {target.machine}")
        return folder / "kernel-x.so"

    monkeypatch.setattr(building, "misfit", lambda path, target: "not built for Linux")
    monkeypatch.setattr(building, "compiled_kernel", compiled)
    package = build_package(RECIPE, tmp_path)
    assert package.notices == ()
    with zipfile.ZipFile(package.path) as archive:
        found = [name for name in archive.namelist() if name.startswith("fsdcore/kernels/_native")]
        assert found == [kernel.KERNEL]
        assert archive.read(kernel.KERNEL) == b"for x86_64"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def lose(folder: Path) -> None:
    (folder / "six.py").unlink()


@pytest.mark.parametrize(("pattern", "harm"), [("package-*.zip", truncate), ("libraries-*", lose)])
def test_what_was_damaged_in_the_cache_is_made_anew(
    pattern: str, harm: Callable[[Path], None], package: Package, tmp_path: Path
) -> None:
    for kept in package.path.parent.glob("*-*"):
        (shutil.copytree if kept.is_dir() else shutil.copyfile)(kept, tmp_path / kept.name)
    for kept in tmp_path.glob(pattern):
        harm(kept)
    if pattern != "package-*.zip":
        remove(tmp_path.glob("package-*.zip"))
    again = build_package(RECIPE, tmp_path)
    assert again.digest == package.digest


def test_a_cache_that_may_only_be_read_can_be_used(
    package: Package, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    assert build_package(RECIPE, folder) == package


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DeploymentError, match=r"cannot be made in .*cache: ") as caught:
        build_package(RECIPE, tmp_path / "cache")
    assert "\n" not in str(caught.value)
