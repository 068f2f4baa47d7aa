"""``fsd plans``: what a store keeps, and its removal."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from fsd_local import LocalBackend, LocalSettings
from fsdcore.cli.app import app
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.testing import random_network


def fsd(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def _stored(path: Path) -> list[str]:
    backend = LocalBackend(LocalSettings(path=str(path)))
    for workers in (2, 3):
        Session(backend, RunSettings(workers=workers, method="block")).load(random_network((20, 24, 10)))
    names = sorted({key.split("/")[1] for key in backend.store.list("plans/")})
    backend.close()
    assert len(names) == 2
    return names


def test_plans_are_listed_and_removed(tmp_path: Path) -> None:
    path, given = tmp_path / "store", ("local", "--set", f"path={tmp_path / 'store'}")
    first, second = _stored(path)
    shown = fsd("plans", *given)
    assert shown.exit_code == 0
    assert all(f"{name} " in shown.stdout for name in (first, second))
    assert fsd("plans", *given, "--remove", first).stdout == f"removed: {first}\n"
    assert first not in fsd("plans", *given).stdout
    assert fsd("plans", *given, "--remove-all").stdout == f"removed: {second}\n"
    assert fsd("plans", *given).stdout == "no plans\n"
    # What was removed is made again.
    _stored(path)


def test_a_plan_that_is_not_there_is_refused_and_none_is_removed(tmp_path: Path) -> None:
    given = ("local", "--set", f"path={tmp_path / 'store'}")
    first, second = _stored(tmp_path / "store")
    done = fsd("plans", *given, "--remove", first, "--remove", "other")
    assert (done.exit_code, done.stderr) == (2, "fsd: error: there is no plan 'other'; see: fsd plans local\n")
    assert all(name in fsd("plans", *given).stdout for name in (first, second))


def test_a_plan_that_is_not_whole_can_be_removed(tmp_path: Path) -> None:
    given = ("local", "--set", f"path={tmp_path / 'store'}")
    backend = LocalBackend(LocalSettings(path=str(tmp_path / "store")))
    backend.store.put("plans/half/0123/0", b"x")
    backend.close()
    assert "half" in fsd("plans", *given).stdout
    assert fsd("plans", *given, "--remove", "half").stdout == "removed: half\n"
    assert fsd("plans", *given).stdout == "no plans\n"
