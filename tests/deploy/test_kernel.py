"""A package has the compiled kernel whatever client it is made on, and it gives the bits of every other."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fsdcore.kernels
from fsdcore.deploy import Target, kernel
from fsdcore.deploy.fetching import misfit
from fsdcore.errors import DeploymentError
from fsdcore.kernels import compiled_is_there
from fsdcore.record.observer import SILENT

PROJECT = Path(fsdcore.kernels.__file__).parents[2]
HERE = Path(__file__).parent
# What lies in the place of the compiled kernel where the client is not a Linux with a compiler.
CLIENTS = {
    "macOS on Apple silicon": ("_native.abi3.so", bytes.fromhex("cffaedfe0c000001") + bytes(64)),
    "Windows": ("_native.pyd", b"MZ" + bytes(64)),
    "Linux without a compiler": None,
}
ARM64, ARM64_NEEDS = "qemu-aarch64-static", ("python3-minimal", "libpython3-stdlib", "libstdc++6")


def project_of(client: str, folder: Path) -> Path:
    """A copy of the project as `client` has it."""
    ignored = shutil.ignore_patterns("_native*.so", "__pycache__")
    for name in ("fsdcore", "backends/aws/fsd_aws"):
        shutil.copytree(PROJECT / name, folder / Path(name).name, ignore=ignored)
    if found := CLIENTS[client]:
        (folder / "fsdcore" / "kernels" / found[0]).write_bytes(found[1])
    return folder


def made_by(client: str, machine: str, folder: Path, cache: Path) -> list[str]:
    """Make Lambda's package as `client` would; where it is, and the notices."""
    environ = {**os.environ, "PYTHONPATH": str(project_of(client, folder)), "PATH": str(folder / "no-programs")}
    command = [sys.executable, "-P", str(HERE / "client.py"), str(cache), machine]
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def unpacked(package: str, folder: Path) -> Path:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


def answers(*command: str | Path) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("machine", ["x86_64", "arm64"])
def test_every_client_packs_the_same_kernel_for_the_target(
    client: str, machine: str, cache: Path, tmp_path: Path
) -> None:
    path, *notices = made_by(client, machine, tmp_path / "project", cache)
    assert notices == []
    packed = unpacked(path, tmp_path / "task") / "fsdcore" / "kernels"
    assert [found.name for found in packed.glob("_native*")] == ["_native.abi3.so"]
    assert misfit(packed / "_native.abi3.so", Target("3.11", machine, 17)) is None
    # Compiled from nothing by another client, it is the same bytes.
    if client == "Windows":
        alone = kernel.compiled_kernel(Target("3.14", machine, 34), tmp_path / "another cache", SILENT)
        assert alone.read_bytes() == (packed / "_native.abi3.so").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the package is for x86_64")
def test_the_package_of_a_client_without_a_compiler_gives_the_bits_of_this_one(cache: Path, tmp_path: Path) -> None:
    if not compiled_is_there():
        pytest.skip("needs the compiled kernel to compare with")
    path, *_ = made_by("Linux without a compiler", "x86_64", tmp_path / "project", cache)
    task = unpacked(path, tmp_path / "task")
    # The same instructions too: it looks at the processor by itself.
    assert answers(sys.executable, "-I", "-S", HERE / "answers.py", task) == answers(
        sys.executable, HERE / "answers.py", PROJECT
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_package_for_arm64_gives_the_bits_of_this_one(cache: Path, tmp_path: Path) -> None:
    if shutil.which(ARM64) is None or shutil.which("apt-get") is None:
        pytest.skip(f"needs {ARM64}, and apt-get to fetch a Python for arm64")
    python = python_of_arm64(tmp_path)
    if python.name != f"python{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip("this system has another Python than the tests")
    path, *_ = made_by("macOS on Apple silicon", "arm64", tmp_path / "project", cache)
    task = unpacked(path, tmp_path / "task")
    system = python.parents[2]
    found = answers(ARM64, "-L", system, python, "-I", "-S", HERE / "answers.py", task)
    assert found[0] == "aarch64 compiled (portable)"
    assert found[1:] == answers(sys.executable, HERE / "answers.py", PROJECT)[1:]


def python_of_arm64(folder: Path) -> Path:
    """The system's own Python for arm64, unpacked below `folder` and not installed."""
    for name in ("state/lists/partial", "cache/archives/partial", "system"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    options = {"Dir::State": "state", "Dir::Cache": "cache", "Dir::State::status": "status"}
    chosen = [f"-o{name}={folder / value}" for name, value in options.items()]
    chosen += ["-oAPT::Architecture=arm64", "-oAPT::Architectures::=arm64", "-oAPT::Sandbox::User=root", "-qq"]
    subprocess.run(["apt-get", *chosen, "update"], check=True)
    fetched = ["install", "--yes", "--no-install-recommends", "--download-only", *ARM64_NEEDS]
    subprocess.run(["apt-get", *chosen, *fetched], check=True)
    for archive in (folder / "cache" / "archives").glob("*.deb"):
        subprocess.run(["dpkg", "-x", archive, folder / "system"], check=True)
    return next(path for path in (folder / "system/usr/bin").glob("python3.*") if not path.is_symlink())


def no_compiler(lock: Path, folder: Path, what: str, target: Target | None = None) -> None:
    """In place of the compiler, a program that fails as compilers do."""
    (folder / "ziglang").mkdir(parents=True)
    program = folder / "ziglang" / "zig"
    program.write_text("#!/bin/sh\necho 'kernel.c:1: error: no such luck' >&2\necho more >&2\nexit 1\n")
    program.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="the compiler's stand-in is a shell script")
def test_a_compiler_that_fails_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "fetch", no_compiler)
    with pytest.raises(
        DeploymentError, match=r"cannot be compiled for Python 3.13 on arm64 .*: kernel.c:1: error"
    ) as caught:
        kernel.compiled_kernel(Target("3.13", "arm64", 34), tmp_path, SILENT)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_that_was_compiled_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(target: Target, scratch: Path) -> Path:
        (scratch / "made.so").write_bytes(target.machine.encode())
        return scratch / "made.so"

    def never(target: Target, scratch: Path) -> Path:
        raise AssertionError("compiled again")

    monkeypatch.setattr(kernel, "_compile", compiled)
    first = kernel.compiled_kernel(Target("3.13", "arm64", 34), tmp_path, SILENT)
    other = kernel.compiled_kernel(Target("3.13", "x86_64", 34), tmp_path, SILENT)
    assert (first.read_bytes(), other.read_bytes()) == (b"arm64", b"x86_64")
    monkeypatch.setattr(kernel, "_compile", never)
    # One kernel is for every Python and every newer Linux.
    assert kernel.compiled_kernel(Target("3.14", "arm64", 35), tmp_path, SILENT) == first


@pytest.mark.parametrize("changed", ["_native.c", "_product.h", "flags.txt"])
def test_a_kernel_of_other_sources_is_another(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(target: Target, scratch: Path) -> Path:
        (scratch / "made.so").write_bytes((sources / changed).read_bytes())
        return scratch / "made.so"

    sources = tmp_path / "sources"
    shutil.copytree(Path(fsdcore.kernels.__file__).parent, sources)
    monkeypatch.setattr(kernel, "_SOURCES", sources)
    monkeypatch.setattr(kernel, "_FLAGS", sources / "flags.txt")
    monkeypatch.setattr(kernel, "_compile", compiled)
    target = Target("3.13", "arm64", 34)
    before = kernel.compiled_kernel(target, tmp_path / "cache", SILENT)
    with (sources / changed).open("a") as stream:
        stream.write("\n")
    after = kernel.compiled_kernel(target, tmp_path / "cache", SILENT)
    assert after.read_bytes() == before.read_bytes() + b"\n"


def test_a_kernel_that_was_damaged_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(target: Target, scratch: Path) -> Path:
        (scratch / "made.so").write_bytes(target.machine.encode())
        return scratch / "made.so"

    monkeypatch.setattr(kernel, "_compile", compiled)
    target = Target("3.13", "arm64", 34)
    kernel.compiled_kernel(target, tmp_path, SILENT).write_bytes(b"")
    assert kernel.compiled_kernel(target, tmp_path, SILENT).read_bytes() == b"arm64"
