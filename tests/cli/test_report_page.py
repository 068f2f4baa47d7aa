"""``fsd report``: from a run to a page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsdcore.cli import main
from fsdcore.network.formats import save_network, save_outputs
from fsdcore.testing import random_inputs, random_network


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The current directory, with the record of a run and its forecast."""
    monkeypatch.chdir(tmp_path)
    save_network(random_network((30, 40, 35, 20)), tmp_path / "net.safetensors")
    save_outputs(tmp_path / "x.npz", random_inputs(50, 30))
    (tmp_path / "fsd.toml").write_text('method = "block"\n[local]\npath = "store"\n')
    monkeypatch.setenv("FSD_CONFIG", "fsd.toml")
    asked = ("net.safetensors", "x.npz", "--workers", "3")
    assert _run("forecast", *asked, "--prices", "aws/eu-west-1", "-o", "forecast.json") == 0
    assert _run("run", *asked, "--record", "run.json", "--trace") == 0
    capsys.readouterr()
    return tmp_path


def _run(*arguments: str) -> int:
    return main(arguments)


def test_a_page_beside_its_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("report", "run.json") == 0
    said = capsys.readouterr().out
    page = (folder / "run.html").read_text()
    run = json.loads((folder / "run.json").read_text())["run_id"]
    assert said.startswith(f"run.html: run {run}, ")
    assert run in page
    assert "not traced" not in page
    assert "No prices were given" in page


def test_with_prices_and_with_a_forecast(folder: Path) -> None:
    assert _run("report", "run.json", "-o", "a.html", "--prices", "gcp/us-central1", "--memory", "512") == 0
    assert "Pub/Sub publishes" in (folder / "a.html").read_text()
    assert _run("report", "run.json", "-o", "b.html", "--forecast", "forecast.json") == 0
    page = (folder / "b.html").read_text()
    assert "aws/eu-west-1" in page
    assert "forecast / run" in page
    assert "The forecast is of another run" not in page


def test_a_forecast_of_another_run_is_told_apart(folder: Path) -> None:
    assert _run("run", "net.safetensors", "x.npz", "--workers", "2", "--channel", "object", "--record", "two.json") == 0
    assert _run("report", "two.json", "--forecast", "forecast.json") == 0
    page = (folder / "two.html").read_text()
    assert "The forecast is of another run: </strong>channel queue, not object; workers 3, not 2." in page
    assert "not traced" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.json",), "none.json"),
        (("x.npz",), "x.npz: not the record of a run"),
        (("old.json",), "old.json: a record of version 1; this release reads"),
        (("cut.json",), "cut.json: the record has 2 workers of 3"),
        (("run.json", "-o", "page.pdf"), "page.pdf: the name must end in .html or .htm"),
        (("run.json", "-o", "none/page.html"), "none/page.html: cannot be written: there is no folder none"),
        (("run.json", "--prices", "aws/moon"), "there are no prices for 'aws/moon'"),
        (("run.json", "--prices", "none.toml"), "none.toml: cannot be read"),
        (("run.json", "--forecast", "run.json"), "run.json: not a forecast"),
        (("run.json", "--option", "store=express"), "--option needs --prices"),
        (("run.json", "--prices", "aws/us-east-1", "--option", "x"), "--option must be NAME=VALUE, not 'x'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    record = json.loads((folder / "run.json").read_text())
    (folder / "old.json").write_text(json.dumps({**record, "version": 1}))
    (folder / "cut.json").write_text(json.dumps({**record, "per_worker": record["per_worker"][:2]}))
    assert _run("report", *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (folder / "page.pdf").exists()
