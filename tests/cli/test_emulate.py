"""``fsd emulate`` with a backend whose only service is a list."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Self

import pytest
from typer.testing import CliRunner, Result

from fsd_emulators.server import Emulator
from fsdcore.cli.app import app
from fsdcore.client import registry
from fsdcore.errors import ServerError

SEEN: list[str] = []
_SIGNALS = {"term": signal.SIGTERM, "hang up": signal.SIGHUP}


class ToyEmulator(Emulator):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def services(self) -> Mapping[str, str]:
        return {"Toy queue": "127.0.0.1:1"}

    @property
    def environment(self) -> Mapping[str, str]:
        # By now the command listens to signals: the timer ends it.
        number = next((_SIGNALS[word] for word in SEEN if word in _SIGNALS), signal.SIGINT)
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        return {"TOY_HOST": "127.0.0.1:1", "TOY_NAME": "two words"}

    def start(self) -> Self:
        if "broken" in SEEN:
            raise ServerError("toy did not start")
        SEEN.append(f"started in {self.folder}")
        return self

    def stop(self) -> None:
        SEEN.append(f"stopped, folder there: {self.folder.is_dir()}")


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    points = {
        registry.GROUP: [
            EntryPoint("local", "fsd_local:LocalBackend", registry.GROUP),
            EntryPoint("cloudy", "fsd_aws:AwsBackend", registry.GROUP),
        ],
        registry.EMULATORS: [
            EntryPoint("toy", f"{__name__}:ToyEmulator", registry.EMULATORS),
            EntryPoint("bare", "no_such_package_of_services:Services", registry.EMULATORS),
        ],
    }
    monkeypatch.setattr(registry, "entry_points", lambda group: points[group])


def fsd(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["emulate", *arguments])


def test_it_writes_what_a_shell_can_read_and_ends_well() -> None:
    done = fsd("toy")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "# Toy queue: 127.0.0.1:1",
        "export TOY_HOST=127.0.0.1:1",
        "export TOY_NAME='two words'",
    ]
    assert "Ctrl-C" in done.stderr


@pytest.mark.parametrize("kind", ["interrupt", *_SIGNALS])
def test_the_services_are_stopped_before_their_folder_goes(kind: str) -> None:
    SEEN.append(kind)
    assert fsd("toy").exit_code == 0
    folder = Path(SEEN[1].removeprefix("started in "))
    assert (SEEN[-1], folder.exists()) == ("stopped, folder there: True", False)


def test_a_folder_that_was_named_is_made_and_kept(tmp_path: Path) -> None:
    assert fsd("toy", "--folder", str(tmp_path / "kept")).exit_code == 0
    assert SEEN[0] == f"started in {tmp_path / 'kept'}"
    assert (tmp_path / "kept").is_dir()


def test_signals_are_as_they_were_after_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    fsd("toy")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_backend_without_services_is_refused() -> None:
    done = fsd("local")
    assert (done.exit_code, done.stderr) == (2, "fsd: error: backend 'local' has no services to run: use it as it is\n")
    assert "there is no backend 'lokal'; did you mean 'local'?" in fsd("lokal").stderr


def test_services_that_are_not_installed_say_how() -> None:
    done = fsd("cloudy")
    assert done.exit_code == 2
    assert "the services of backend 'cloudy' are not installed" in done.stderr
    assert "pip install ./emulators" in done.stderr


def test_services_that_lack_a_package_say_so() -> None:
    done = fsd("bare")
    assert done.exit_code == 2
    assert "'bare' needs the package 'no_such_package_of_services'" in done.stderr


def test_services_that_do_not_start_are_one_line() -> None:
    SEEN.append("broken")
    done = fsd("toy")
    assert (done.exit_code, done.stderr) == (1, "fsd: error: toy did not start\n")


@pytest.mark.skipif(sys.platform != "linux", reason="the services are made for Linux")
@pytest.mark.parametrize(
    "modules",
    [
        ["fsd_emulators.aws.local", "fsd_emulators.aws.__main__", "fsd_emulators.aws.environment"],
        ["fsd_emulators.gcp.local", "fsd_emulators.gcp.launch", "fsd_emulators.gcp.environment"],
    ],
    ids=["aws", "gcp"],
)
def test_the_services_need_nothing_that_only_tests_need(modules: list[str]) -> None:
    """A user has the extras, and no pytest: that is in a group for those who work on the project."""
    lines = ["import sys", "sys.modules.update(pytest=None, hypothesis=None)", *(f"import {name}" for name in modules)]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, env=os.environ)
