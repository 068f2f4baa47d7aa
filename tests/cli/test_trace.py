"""``fsd run --trace`` and ``fsd trace``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsdcore.cli import main
from fsdcore.network.formats import save_network, save_outputs
from fsdcore.record.file import read_record
from fsdcore.record.record import RECORD_VERSION
from fsdcore.testing import random_inputs, random_network

RUN = ("run", "net.safetensors", "x.npz", "--workers", "3", "--method", "block")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a network and inputs."""
    monkeypatch.chdir(tmp_path)
    save_network(random_network((30, 40, 35, 20)), tmp_path / "net.safetensors")
    save_outputs(tmp_path / "x.npz", random_inputs(50, 30))
    return tmp_path


def test_a_traced_run_becomes_a_trace(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*RUN, "--trace", "--record", "run.json"]) == 0
    capsys.readouterr()
    assert main(["trace", "run.json", "-o", "trace.json"]) == 0
    shown = capsys.readouterr().out
    trace = json.loads((folder / "trace.json").read_text())
    slices = sum(event["ph"] == "X" for event in trace["traceEvents"])
    assert shown.startswith(f"trace.json: 3 ranks, {slices:,} slices, ")
    assert trace["otherData"]["run_id"] == read_record("run.json").run_id


def test_the_configuration_may_ask_for_a_trace(folder: Path) -> None:
    (folder / "fsd.toml").write_text("trace = true\n")
    assert main([*RUN, "--config", "fsd.toml", "--record", "run.json"]) == 0
    assert read_record("run.json").traced
    assert main([*RUN, "--config", "fsd.toml"]) == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ("trace", "plain.json", "-o", "t.json"),
            "plain.json: the record has no trace: run again with fsd run --trace",
        ),
        (
            ("trace", "old.json", "-o", "t.json"),
            f"old.json: a record of version {RECORD_VERSION - 1}; this release reads",
        ),
        (("trace", "bent.json", "-o", "t.json"), "bent.json: the record has 3 workers of 4"),
        (("trace", "x.npz", "-o", "t.json"), "x.npz: not the record of a run"),
        (("trace", "none.json", "-o", "t.json"), "none.json: cannot be read: No such file"),
        (("trace", "plain.json", "-o", "plain.json"), "plain.json: --output would write over RECORD"),
        (("trace", "plain.json", "-o", "t.html"), "t.html: the name must end in .json"),
        (("trace", "plain.json", "-o", "no/t.json"), "there is no folder no"),
        ((*RUN, "--trace"), "--trace needs --record FILE"),
    ],
)
def test_bad_input_is_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], error: str
) -> None:
    assert main([*RUN, "--record", "plain.json"]) == 0
    assert main([*RUN, "--trace", "--record", "traced.json"]) == 0
    plain, traced = (json.loads((folder / name).read_text()) for name in ("plain.json", "traced.json"))
    (folder / "old.json").write_text(json.dumps({**plain, "version": RECORD_VERSION - 1}))
    (folder / "bent.json").write_text(json.dumps({**traced, "workers": 4}))
    before = (folder / "plain.json").read_bytes()
    capsys.readouterr()
    assert main([*arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert error in said
    assert not list(folder.glob("t.*"))
    assert (folder / "plain.json").read_bytes() == before
