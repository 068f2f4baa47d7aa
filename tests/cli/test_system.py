"""``fsd backends``, ``fsd config show``, ``fsd doctor``."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fsdcore import kernels as choice
from fsdcore.cli.app import app
from fsdcore.client import registry
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.errors import AccessDeniedError


@dataclass(frozen=True)
class ToySettings:
    path: str = ".[toy]"
    region: str | None = None
    key: str = field(default="", repr=False)


class ToyBackend(Backend):
    name = "local"
    summary = "for tests"
    channels = ("pigeon", "queue")
    settings_type = ToySettings
    store = compute = open_channel = None  # type: ignore[assignment]

    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        return ChannelCapabilities(max_frame_bytes=262_144, max_publish_frames=10, max_publish_bytes=5)


class LockedBackend(ToyBackend):
    def credentials(self) -> str:
        raise AccessDeniedError("no credentials found; run: toy login")


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, registry.GROUP)


POINTS = [
    point("local", f"{__name__}:ToyBackend"),
    point("cloud", "no_such_package_of_a_cloud:Backend"),
    point("broken", f"{__name__}:NotThere"),
    point("locked", f"{__name__}:LockedBackend"),
]


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    found = [*POINTS]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    return found


def fsd(*arguments: str | Path, **environ: str) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200", **environ})


def line(text: str, *words: str) -> str:
    """The one line of `text` with all the words."""
    lines = [line for line in text.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, text
    return lines[0]


def test_backends_shows_limits_and_what_is_missing(points: list[EntryPoint]) -> None:
    done = fsd("backends")
    assert done.exit_code == 0
    assert line(done.stdout, "local", "installed", "pigeon", "262 kB", "10", "5 B")
    assert line(done.stdout, "local: for tests")
    assert line(done.stdout, "local", "installed", "queue")
    assert line(done.stdout, "cloud", "missing, run: pip install 'cloud[cloud]'")
    assert line(done.stdout, "broken", "NotThere")


def test_config_show_says_where_each_value_came_from(points: list[EntryPoint], tmp_path: Path) -> None:
    file = tmp_path / "fsd.toml"
    file.write_text("seed = 3\n[local]\nkey = 'hush'\n")
    done = fsd("config", "show", "--config", file, FSD_WORKERS="4")
    assert done.exit_code == 0, done.output
    assert line(done.stdout, "workers ", " 4 ", "environment FSD_WORKERS")
    assert line(done.stdout, "seed ", " 3 ", f"file {file}")
    assert line(done.stdout, "local.path ", " .[toy] ", "default")
    assert line(done.stdout, "local.region ", " (not set) ", "default")
    assert line(done.stdout, "local.key", "(set, hidden)")
    assert "hush" not in done.output


def test_config_show_refuses_what_nobody_knows(points: list[EntryPoint]) -> None:
    done = fsd("config", "show", FSD_WORKRES="4")
    assert done.exit_code == 2
    assert done.stderr == ("fsd: error: unknown environment variable FSD_WORKRES; did you mean 'FSD_WORKERS'?\n")


def test_doctor_shows_versions_and_credentials(points: list[EntryPoint]) -> None:
    done = fsd("doctor")
    assert done.exit_code == 0, done.output
    assert line(done.stdout, "numpy ")
    assert line(done.stdout, "kernel ")
    assert line(done.stdout, "local ", "pigeon, queue", "none needed")
    assert line(done.stdout, "cloud ", "missing, run: pip install")
    assert line(done.stdout, "locked ", "no credentials found; run: toy login")


def test_doctor_shows_the_kernel_of_the_setting(points: list[EntryPoint], tmp_path: Path) -> None:
    assert line(fsd("doctor", FSD_KERNEL="scipy").stdout, "kernel ").split() == ["kernel", "scipy"]
    file = tmp_path / "fsd.toml"
    file.write_text("kernel = 'scipy'\n")
    assert line(fsd("doctor", "--config", file).stdout, "kernel ").split() == ["kernel", "scipy"]


def test_doctor_says_where_the_compiled_kernel_is_missing(
    points: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "compiled_is_there", lambda: False)
    assert line(fsd("doctor").stdout, "kernel ", "scipy (compiled one not installed)")
    refused = fsd("doctor", FSD_KERNEL="compiled")
    assert refused.exit_code == 2
    assert line(refused.stderr, "fsd: error: the compiled kernel is not installed")


def test_doctor_without_a_usable_backend_is_1(points: list[EntryPoint]) -> None:
    points[:] = [POINTS[1]]
    done = fsd("doctor")
    assert done.exit_code == 1
    assert "no backend can be used" in done.stdout


def test_no_backend_at_all_is_an_error(points: list[EntryPoint]) -> None:
    points.clear()
    assert fsd("backends").exit_code == 2
