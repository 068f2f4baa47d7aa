"""``fsd simulate``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsdcore.cli import main
from fsdcore.record.file import read_record

_SIZE = ("--neurons", "4096", "--layers", "20", "--density", "0.1", "--samples", "500", "--model", "aws", "--runs", "3")


def _simulate(*arguments: str) -> int:
    return main(("simulate", *arguments))


def test_the_counters_of_a_simulated_run_are_those_of_the_run(folder: Path) -> None:
    files = ("net.safetensors", "x.npz", "--workers", "3", "--batch-size", "20")
    assert _simulate(*files, "--exact", "--runs", "2", "--record", "simulated.json") == 0
    assert main(("run", *files, "--record", "run.json")) == 0
    simulated, real = (read_record(folder / name).counters for name in ("simulated.json", "run.json"))
    for name in ("rows_sent", "nonzeros_sent", "messages", "publishes", "bytes_sent", "puts", "gets", "invocations"):
        assert simulated[name] == real[name], name


def test_a_run_of_a_thousand_workers_has_seconds_a_bill_and_a_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _simulate(*_SIZE, "--workers", "1000", "--record", "run.json", "-o", "summary.json") == 0
    shown = capsys.readouterr().out
    assert "1,000 workers, 20 layers, 500 samples" in shown
    assert "the time depends most on" in shown
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["runs"]) == 3
    assert main(("bill", "run.json", "--prices", "aws/us-east-1")) == 0
    assert "SNS" in capsys.readouterr().out
    assert read_record(folder / "run.json").workers == 1000


def test_a_simulated_run_has_its_trace_and_its_page(folder: Path) -> None:
    files = ("net.safetensors", "x.npz", "--workers", "4", "--batch-size", "20", "--model", "aws", "--runs", "1")
    assert _simulate(*files, "--record", "run.json", "--trace") == 0
    assert main(("trace", "run.json", "-o", "trace.json")) == 0
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert main(("report", "run.json", "-o", "run.html")) == 0
    assert "simulated aws" in (folder / "run.html").read_text()


def test_the_record_of_thousands_of_workers_has_its_bill_page_and_trace(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ("--neurons", "4096", "--layers", "3", "--workers", "2100", "--density", "0.05", "--samples", "50")
    how = ("--model", "aws", "--memory", "1024", "--runs", "1", "--no-explain", "--branching", "8")
    assert _simulate(*size, *how, "--trace", "--record", "run.json", "-o", "summary.json") == 0
    dollars = json.loads((folder / "summary.json").read_text())["runs"][0]["dollars"]
    capsys.readouterr()
    assert main(("bill", "run.json", "--prices", "aws/us-east-1")) == 0
    shown = capsys.readouterr().out
    assert "2,100 workers of 1,024 MiB" in shown
    assert f"${dollars:.4g}" in shown
    assert main(("report", "run.json")) == 0
    assert main(("trace", "run.json", "-o", "trace.json")) == 0
    assert "2100 ranks" in capsys.readouterr().out


def test_the_same_seed_is_the_same_run(folder: Path) -> None:
    for name in ("a.json", "b.json"):
        assert _simulate(*_SIZE, "--workers", "4", "--no-explain", "--first-seed", "9", "--record", name) == 0
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either a NETWORK file or its size, --neurons and --layers"),
        (("net.safetensors", "--neurons", "8", "--layers", "2"), "give either a NETWORK file or its size"),
        (("--neurons", "8"), "--neurons and --layers go together"),
        (("--neurons", "8", "--layers", "2"), "a size needs --density and --samples"),
        (("net.safetensors", "--layers", "2"), "--neurons and --layers go together"),
        (("net.safetensors",), "give either INPUTS or --density with --samples"),
        (("net.safetensors", "--exact", "--density", "0.1", "--samples", "5"), "--exact needs INPUTS"),
        ((*_SIZE, "--workers", "5000"), "5000 workers for 4096 neurons: give each at least one"),
        ((*_SIZE, "--density", "much"), "--density must be numbers with commas between, not 'much'"),
        ((*_SIZE, "--exchange", "2"), "exchange must be above 0 and at most 1, not 2.0"),
        ((*_SIZE, "--conditions", "stormy"), "there are no conditions 'stormy'"),
        ((*_SIZE, "--channel", "auto"), "name a channel to simulate: queue or object"),
        ((*_SIZE, "--channel", "pigeon"), "backend 'local' has no channel 'pigeon'"),
        ((*_SIZE, "--partition", "p.npz"), "--partition is of a NETWORK file, not of a size"),
        ((*_SIZE, "--trace"), "--trace needs --record FILE"),
        ((*_SIZE, "--record", "none/run.json"), "cannot be written: there is no folder none"),
    ],
)
def test_bad_input_is_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert _simulate(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
