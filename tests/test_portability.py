"""Clients on systems that are not POSIX: what Python lacks there, the core and the cloud backends do without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import uv

# Takes away what Python has on POSIX systems only. What others need of it has been imported before.
_AS_ON_WINDOWS = """
import asyncio, concurrent.futures, multiprocessing, pathlib, shutil, signal, subprocess, tempfile, time
import boto3, google.cloud.storage, google.cloud.pubsub_v1, mtkahypar, numpy, os, rich.console, scipy.sparse, sys, typer
for name in ("fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
for module, names in {
    os: "O_ACCMODE O_CLOEXEC O_DIRECTORY O_NOFOLLOW chown fchmod fork geteuid getpgid getuid killpg mkfifo "
    "posix_fallocate pread sched_getaffinity setsid statvfs sysconf uname wait4",
    signal: "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGUSR1 alarm pause setitimer",
    time: "CLOCK_BOOTTIME CLOCK_MONOTONIC clock_gettime",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
"""
_IMPORT_ALL = """
import importlib, pkgutil
import fsd_aws, fsd_gcp, fsd_local, fsdcore
for package in (fsdcore, fsd_aws, fsd_gcp, fsd_local):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        # Suites are for authors of backends.
        if not module.name.startswith("fsdcore.testing"):
            importlib.import_module(module.name)
"""
_RUN = """
from fsdcore.cli import main
sys.argv = ["fsd", *sys.argv[1:]]
sys.exit(main())
"""


def run(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "FSD_LOCAL_PATH": str(folder / "store")}
    command = [sys.executable, "-c", _AS_ON_WINDOWS + code, *arguments]
    return subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)


def test_all_modules_of_a_client_are_imported(tmp_path: Path) -> None:
    done = run(tmp_path, _IMPORT_ALL)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_a_network_is_made_run_and_reported(channel: str, tmp_path: Path) -> None:
    for command in (
        "generate radixnet --neurons 1024 --layers 4 --seed 0 -o net.safetensors",
        "generate digits --samples 20 --neurons 1024 -o inputs.npz",
        f"run net.safetensors inputs.npz -o outputs.npz --workers 3 --channel {channel} --verify --record run.json",
        "report run.json -o run.html",
        "doctor",
    ):
        done = run(tmp_path, _RUN, *command.split())
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs.npz").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.11", "3.14"])
@pytest.mark.parametrize("platform", ["aarch64-apple-darwin", "x86_64-apple-darwin", "windows", "linux"])
def test_every_client_gets_what_it_needs_without_a_compiler(platform: str, python: str, tmp_path: Path) -> None:
    project = Path(__file__).parents[1] / "pyproject.toml"
    command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--only-binary", ":all:", "--output-file", os.devnull]
    command += ["--python-platform", platform, "--python-version", python, "--group", f"{project}:dev", str(project)]
    extras = [f"--extra={name}" for name in ("client", "demo", "aws", "gcp", "telemetry", "testing")]
    done = subprocess.run([*command, *extras], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
