"""Distributions come by uv, for any machine, and only what the lock's hashes name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import uv

from fsd_aws.deploy import package as lambda_package
from fsd_aws.deploy.package import lambda_recipe
from fsd_aws.settings import AwsSettings
from fsd_gcp.deploy import package as gcp_package
from fsdcore.deploy import Target, kernel
from fsdcore.deploy.fetching import fetch, wheels_for
from fsdcore.errors import DeploymentError

LOCK = Path(__file__).with_name("six.txt")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def test_all_of_a_lock_is_installed(tmp_path: Path) -> None:
    fetch(LOCK, tmp_path / "made", "six", Target("3.13", "arm64", 34))
    assert (tmp_path / "made" / "six.py").is_file()


def test_what_has_another_hash_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("six==1.17.0 --hash=sha256:" + "0" * 64)
    with pytest.raises(DeploymentError, match=r"six cannot be had: uv: .*[Hh]ash.*six==1\.17\.0") as caught:
        fetch(tmp_path / "lock.txt", tmp_path / "made", "six")
    assert "\n" not in str(caught.value)
    assert "UV_DEFAULT_INDEX" not in str(caught.value)


def test_what_has_no_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("six==1.17.0")
    with pytest.raises(DeploymentError, match="hash"):
        fetch(tmp_path / "lock.txt", tmp_path / "made", "six")


def test_nothing_comes_that_the_lock_does_not_name(tmp_path: Path) -> None:
    """What needs six is installed without it, if the lock does not have it."""
    lock = Path(lambda_package.__file__).with_name("requirements.txt").read_text()
    found = re.search(r"^python-dateutil==.*?(?=^\w)", lock, re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "lock.txt").write_text(found[0])
    fetch(tmp_path / "lock.txt", tmp_path / "made", "dates", Target("3.13", "arm64", 34))
    assert (tmp_path / "made" / "dateutil").is_dir()
    assert not (tmp_path / "made" / "six.py").exists()


def program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a program of this text be the only uv there is."""
    (folder / "uv").write_text(text)
    (folder / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "uv", None)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "#!/bin/sh\necho \"error: unexpected argument '--color' found\" >&2\nexit 2\n",
            "run: pip install --upgrade uv",
        ),
        ("#!/bin/sh\nexit 2\n", "uv: no reason given"),
        ("no program", "uv cannot be run: "),
    ],
)
def test_a_uv_that_is_of_no_use_is_one_line(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, text, monkeypatch)
    with pytest.raises(DeploymentError) as caught:
        fetch(LOCK, tmp_path / "made", "six")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_index_the_message_names_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens on port 9.
    for name, value in {
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_HTTP_RETRIES": "0",
        "UV_NO_CACHE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeploymentError, match="UV_DEFAULT_INDEX") as caught:
        fetch(LOCK, tmp_path / "made", "the packages of a worker")
    assert str(caught.value).startswith("the packages of a worker cannot be had: ")
    assert "\n" not in str(caught.value)


def test_without_uv_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(uv, "find_uv_bin", nothing)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeploymentError, match="uv, which is not installed; run: pip install uv"):
        fetch(LOCK, tmp_path / "made", "six")


def test_a_uv_on_the_search_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(uv.find_uv_bin()).parent))
    monkeypatch.setitem(sys.modules, "uv", None)
    fetch(LOCK, tmp_path / "made", "six")
    assert (tmp_path / "made" / "six.py").is_file()


def test_settings_of_a_project_nearby_are_not_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "uv.toml").write_text('index-url = "http://127.0.0.1:9/simple"\n')
    monkeypatch.chdir(tmp_path / "project")
    for made in (Path("../elsewhere/made"), Path("below/made")):
        fetch(LOCK, made, "six")
        assert (made / "six.py").is_file()


@pytest.mark.parametrize(
    ("glibc", "platform"), [(17, "2_17"), (26, "2_17"), (28, "2_28"), (34, "2_34"), (35, "2_35"), (99, "2_40")]
)
def test_wheels_are_of_no_newer_system_than_the_target(glibc: int, platform: str) -> None:
    assert wheels_for(Target("3.12", "arm64", glibc))[-1] == f"aarch64-manylinux_{platform}"


def tried(lock: Path, folder: Path, *options: str) -> None:
    """See that each distribution of `lock` has a wheel that fits, without fetching it."""
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--dry-run", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--target", str(folder), "--python", sys.executable, *options]
    done = subprocess.run([*command, "--requirements", str(lock)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
@pytest.mark.parametrize("python", PYTHONS)
def test_every_function_of_lambda_has_its_wheels(
    python: str, architecture: Literal["x86_64", "arm64"], tmp_path: Path
) -> None:
    recipe = lambda_recipe(AwsSettings(python=python, architecture=architecture))
    assert recipe.lock is not None
    tried(recipe.lock, tmp_path, *wheels_for(recipe.target))


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_every_function_of_google_cloud_has_its_wheels(python: str, tmp_path: Path) -> None:
    tried(Path(gcp_package.__file__).with_name("requirements.txt"), tmp_path, *wheels_for(Target(python, "x86_64", 35)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "platform", ["aarch64-apple-darwin", "x86_64-apple-darwin", "windows", "linux", "aarch64-manylinux2014"]
)
def test_every_client_has_the_compiler(platform: str, tmp_path: Path) -> None:
    tried(Path(kernel.__file__).with_name("compiler.txt"), tmp_path, "--python-platform", platform)
