"""``fsd deploy``, ``fsd status``, ``fsd destroy``, ``fsd doctor BACKEND``, with a backend that keeps a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner, Result

from fsd_local import LocalBackend, LocalSettings
from fsdcore.cli import main
from fsdcore.cli.app import app
from fsdcore.cli.signals import running_workers
from fsdcore.client import registry
from fsdcore.contracts.backend import Check, DeploymentStatus, Provisioner, Removal
from fsdcore.errors import AccessDeniedError, ConfigError
from fsdcore.record.observer import Silent

MADE: dict[str, int] = {}
STUCK: list[str] = []


@dataclass(frozen=True)
class ToySettings:
    name: str = "toy"
    lanes: int = 1
    broken: str = ""

    def __post_init__(self) -> None:
        if not self.name.isalpha():
            raise ConfigError(f"name must be letters, not {self.name!r}")


class ToyProvisioner(Provisioner):
    def __init__(self, settings: ToySettings) -> None:
        self._settings = settings

    def describe(self, workers: int) -> str:
        return f"{self._settings.lanes} x {workers} queues"

    def deploy(self, workers: int) -> DeploymentStatus:
        if self._settings.broken == "interrupt":
            raise KeyboardInterrupt
        if self._settings.broken == "login":
            raise AccessDeniedError("no credentials; run: toy login")
        MADE[self._settings.name] = workers
        return self.status()

    def status(self) -> DeploymentStatus:
        name = self._settings.name
        workers, broken = MADE.get(name, 0), self._settings.broken
        resources = (f"queues: {workers}",) if name in MADE else ()
        return DeploymentStatus(name, bool(workers and not broken), workers, resources, broken)

    def destroy(self) -> Removal:
        if STUCK:
            return Removal(left=tuple(STUCK))
        return Removal((f"{self._settings.name}: queues",) if MADE.pop(self._settings.name, 0) else ())


class ToyBackend(LocalBackend):
    settings_type: ClassVar[type[Any]] = ToySettings

    def __init__(self, settings: ToySettings | None = None) -> None:
        super().__init__(LocalSettings())
        self.toy = settings or ToySettings()

    def provisioner(self) -> Provisioner:
        return ToyProvisioner(self.toy)

    def checks(self, workers: int) -> Iterator[Check]:
        yield Check("credentials", True, "those of toy")
        yield Check("quota", workers <= 8, f"8 workers for {workers}", "ask for more")
        if self.toy.broken:
            raise AccessDeniedError("the token has expired; run: toy login")


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    points = [
        EntryPoint("toy", f"{__name__}:ToyBackend", registry.GROUP),
        EntryPoint("local", "fsd_local:LocalBackend", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    yield
    MADE.clear()
    STUCK.clear()


def fsd(*arguments: str | Path, stdin: str = "", **environ: str) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200", **environ}, input=stdin)


def test_from_deploy_to_destroy() -> None:
    done = fsd("deploy", "toy", "--name", "demo", "--max-workers", "4")
    assert (done.exit_code, done.stdout) == (
        0,
        "deployment 'demo': ready for runs of up to 4 workers\n  queues: 4\n",
    )
    assert fsd("status", "toy", "--set", "name=demo").stdout == done.stdout
    done = fsd("destroy", "toy", "--name", "demo", "--yes")
    assert (done.exit_code, done.stdout) == (0, "removed: demo: queues\n")
    done = fsd("destroy", "toy", "--name", "demo", "--yes")
    assert (done.exit_code, done.stdout) == (0, "nothing to remove\n")


def test_what_the_command_line_leaves_out_comes_from_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "fsd.toml"
    file.write_text("workers = 5\n[toy]\nname = 'filed'\n")
    assert fsd("deploy", "toy", "--config", file, "--set", "lanes=3", "--dry-run").stdout == "3 x 5 queues\n"
    assert fsd("deploy", "toy", "--config", file, FSD_TOY_NAME="varied").exit_code == 0
    assert MADE == {"varied": 5}


def test_a_dry_run_makes_nothing() -> None:
    assert fsd("deploy", "toy", "--max-workers", "4", "--dry-run").exit_code == 0
    assert not MADE


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["deploy", "toy", "--name", "a1"], "name must be letters, not 'a1'"),
        (["deploy", "toy", "--set", "lanes=many"], "--set lanes: toy.lanes: expected int, got str"),
        (
            ["deploy", "toy", "--set", "lane=2"],
            "backend 'toy' has no setting 'lane'; did you mean 'lanes'?",
        ),
        (["deploy", "toy", "--set", "lanes"], "--set lanes: must be KEY=VALUE, such as name=demo"),
        (["deploy", "toy", "--max-workers", "0"], "workers must be at least 1, not 0"),
        (["deploy", "tyo"], "there is no backend 'tyo'; did you mean 'toy'?"),
        (["deploy", "local"], "backend 'local' needs no deployment: run on it at once, with --backend local"),
        (["status", "toy"], "there is no deployment 'toy'; run: fsd deploy toy"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], problem: str) -> None:
    done = fsd(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("fsd: error: ")
    assert done.stderr.endswith(f"{problem}\n")
    assert done.stderr.count("\n") == 1


def test_no_credentials_is_one_line() -> None:
    done = fsd("deploy", "toy", "--set", "broken=login")
    assert (done.exit_code, done.stderr) == (1, "fsd: error: no credentials; run: toy login\n")


def test_a_stopped_deploy_says_how_it_goes_on() -> None:
    done = fsd("deploy", "toy", "--set", "broken=interrupt")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "fsd: stopped; what was begun is kept; to go on, run the same command again\n"


def test_status_of_what_cannot_be_used_is_1() -> None:
    fsd("deploy", "toy")
    done = fsd("status", "toy", "--set", "broken=run: fsd deploy toy")
    assert (done.exit_code, done.stderr) == (1, "fsd: error: deployment 'toy' is not ready; run: fsd deploy toy\n")


def test_destroy_asks_and_takes_no_for_an_answer() -> None:
    fsd("deploy", "toy")
    assert "Remove the deployment 'toy'" in fsd("destroy", "toy", stdin="n\n").stdout
    assert MADE
    assert fsd("destroy", "toy").stderr == "fsd: error: nothing was removed: no answer; run again with --yes\n"
    assert MADE
    assert fsd("destroy", "toy", stdin="y\n").exit_code == 0
    assert not MADE


def test_destroy_says_what_it_left() -> None:
    STUCK.append("bucket b: denied")
    done = fsd("destroy", "toy", "--yes")
    assert (done.exit_code, done.stdout) == (1, "left: bucket b: denied\n")
    assert done.stderr == "fsd: error: 1 of the resources were left; run the same command again\n"


def test_doctor_of_one_backend_checks_what_it_needs() -> None:
    done = fsd("doctor", "toy")
    assert (done.exit_code, done.stdout) == (0, "ok    credentials: those of toy\nok    quota: 8 workers for 8\n")
    done = fsd("doctor", "toy", "--set", "broken=yes", FSD_WORKERS="9")
    assert done.exit_code == 1
    assert "FAIL  quota: 8 workers for 9; ask for more\n" in done.stdout
    assert "FAIL  access: the token has expired; run: toy login\n" in done.stdout


def test_doctor_of_a_backend_without_services_looks_at_credentials() -> None:
    assert fsd("doctor", "local").stdout == "ok    credentials: none needed\n"


def test_what_was_made_is_told_when_the_bars_have_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def watching() -> Iterator[Silent]:
        yield Silent()
        print("the bars have gone")  # noqa: T201 - where they would be on a terminal

    monkeypatch.setattr("fsdcore.cli.deploy.watching", watching)
    assert main(["deploy", "toy"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert (first, second.partition(":")[0]) == ("the bars have gone", "deployment 'toy'")


def test_workers_are_told_of_only_where_there_are_some() -> None:
    with pytest.raises(KeyboardInterrupt) as without:
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt) as with_workers, running_workers():
        raise KeyboardInterrupt
    assert getattr(without.value, "__notes__", []) == []
    assert with_workers.value.__notes__ == ["all workers were told to stop"]
