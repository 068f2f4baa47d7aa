"""Deployment packages: the same bytes for the same inputs, and nothing that a worker does not need."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from fsdcore.errors import DeploymentError, InputError
from fsdcore.packaging import Package, Recipe, Target, build_package, worker_requirements

HERE = Target(f"{sys.version_info.major}.{sys.version_info.minor}", "x86_64", 28)
ELSEWHERE = Target("3.14" if HERE.python != "3.14" else "3.13", "arm64", 34)
# One small distribution of pure Python stands for all.
RECIPE = Recipe(HERE, ("fsdcore", "backends.local"), ("six==1.17.0",))


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
    for needed in ("fsdcore/worker.py", "backends/__init__.py", "backends/local/backend.py", "six.py"):
        assert needed in found
    client = ("fsdcore/cli/", "fsdcore/report/", "fsdcore/testing/", "fsdcore/packaging.py")
    for needless in (*client, "tests/", "backends/aws/"):
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
    assert f"fsdcore/__pycache__/worker.{sys.implementation.cache_tag}.pyc" in names(package)
    with zipfile.ZipFile(package.path) as archive:
        archive.extractall(tmp_path)
    # No source, so that only what was compiled can be imported; it is taken whatever the time of the source is.
    (tmp_path / "six.py").write_text("broken(")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import six; print(six.__version__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1.17.0\n", "")


def test_for_another_python_nothing_is_compiled_and_that_is_told(folder: Path) -> None:
    package = build_package(dataclasses.replace(RECIPE, target=ELSEWHERE), folder)
    assert not any(name.endswith(".pyc") for name in names(package))
    assert package.notices[-1:] == (
        f"not compiled ahead, for want of Python {ELSEWHERE.python} here: cold starts take longer",
    )


def test_what_the_backend_does_without_is_left_out(package: Package, folder: Path) -> None:
    recipe = dataclasses.replace(
        RECIPE, excluded=("fsdcore/formats",), unneeded=lambda path: path == PurePosixPath("six.py")
    )
    smaller = build_package(recipe, folder)
    assert smaller.path != package.path
    found = names(smaller)
    assert "six.py" not in found
    assert not any(name.startswith("fsdcore/formats") for name in found)


def test_what_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=r"six==0\.0\.999") as caught:
        build_package(dataclasses.replace(RECIPE, requirements=("six==0.0.999",)), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("package-*")) == []


def test_a_package_that_is_too_large_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="bytes unzipped, the most is 1,000"):
        build_package(dataclasses.replace(RECIPE, largest_bytes=1_000), folder)


def elf(machine: int, glibc: int) -> bytes:
    """The parts of a compiled module that matter."""
    return b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + f"GLIBC_2.{glibc}".encode()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("k.abi3.so", elf(62, 17), None),
        ("k.cpython-{tag}-x86_64-linux-gnu.so", elf(62, 17), None),
        ("k.abi3.so", elf(183, 17), "built for arm64, not x86_64"),
        ("k.abi3.so", elf(62, 36), "needs glibc 2.36, the target has 2.28"),
        ("k.cpython-27-x86_64-linux-gnu.so", elf(62, 17), "built for another version than Python"),
        ("k.abi3.so", b"\xcf\xfa\xed\xfe" + bytes(30), "not built for Linux"),
        ("k.pyd", b"MZ" + bytes(30), "not built for Linux"),
        ("k.dylib", b"\xcf\xfa\xed\xfe" + bytes(30), "not built for Linux"),
    ],
)
def test_a_compiled_module_goes_in_only_if_it_fits(
    name: str, content: bytes, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = name.replace("{tag}", HERE.python.replace(".", ""))
    home = tmp_path / "fsd_kernel_for_tests"
    home.mkdir()
    (home / "__init__.py").touch()
    (home / name).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = Recipe(HERE, ("fsd_kernel_for_tests",), ("six==1.17.0",))
    package = build_package(recipe, tmp_path / "cache")
    assert (f"fsd_kernel_for_tests/{name}" in names(package)) == (problem is None)
    assert len(package.notices) == (problem is not None)
    assert all(str(problem) in notice and name in notice for notice in package.notices)


def test_a_package_without_a_compiled_kernel_says_so(folder: Path) -> None:
    package = build_package(dataclasses.replace(RECIPE, excluded=("fsdcore/kernels/_native.abi3.so",)), folder)
    assert package.notices == (f"there is no compiled kernel for {HERE}: workers multiply with scipy, which is slower",)


def test_an_environment_without_pip_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(
        DeploymentError, match=r"pip, which is not in this environment; run: .* -m ensurepip, or: uv pip"
    ):
        build_package(dataclasses.replace(RECIPE, requirements=("six==0.0.998",)), tmp_path / "cache")


def test_older_systems_get_older_arrays() -> None:
    old, new = worker_requirements(Target("3.11", "x86_64", 26)), worker_requirements(Target("3.14", "arm64", 34))
    assert "numpy==2.2.6" in old
    assert "numpy==2.4.6" in new
    assert any(one.startswith("backports.zstd") for one in old)
    assert not any(one.startswith("backports.zstd") for one in new)
