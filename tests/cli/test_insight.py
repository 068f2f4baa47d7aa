"""``fsd forecast``, ``advise``, ``bill``, ``calibrate``, and ``fsd run --bill``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fsdcore.api import connect
from fsdcore.cli import main
from fsdcore.contracts.limits import ComputeCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.estimate.bill import bill, load_prices, usage_of
from fsdcore.record.file import read_record
from fsdcore.record.record import RECORD_VERSION
from fsdcore.testing import random_inputs, random_network
from fsdcore.worker.threads import ThreadCompute
from tests.conftest import SessionMaker


def _run(*arguments: str) -> int:
    return main(arguments)


def test_a_forecast_and_the_bill_of_its_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("forecast", "net.safetensors", "x.npz", "--workers", "3", "--exact", "-o", "forecast.json") == 0
    shown = capsys.readouterr().out
    assert "every message as it will be" in shown
    assert "not counted: the free tier" in shown
    assert _run("run", "net.safetensors", "x.npz", "--workers", "3", "--record", "run.json") == 0
    counters = json.loads((folder / "run.json").read_text())["counters"]
    forecast = json.loads((folder / "forecast.json").read_text())
    for name in ("messages", "publishes", "bytes_sent"):
        assert forecast["counters"][name] == counters[name]
    capsys.readouterr()
    assert _run("bill", "run.json", "--prices", "aws/us-east-1", "--forecast", "forecast.json") == 0
    shown = capsys.readouterr().out
    assert " forecast " in shown
    assert "of another run" not in shown
    assert _run("forecast", "net.safetensors", "x.npz", "--workers", "2", "-o", "forecast.json") == 0
    assert _run("bill", "run.json", "--prices", "gcp/us-central1", "--forecast", "forecast.json") == 0
    other = "workers 2, not 3; prices aws/us-east-1, not gcp/us-central1"
    assert f"note: the forecast is of another run: {other}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("known", "given", "had"), [(None, (), 2048), (512, (), 512), (512, ("--memory", "1024"), 1024)]
)
def test_a_bill_is_for_the_memory_that_a_worker_had(
    folder: Path, capsys: pytest.CaptureFixture[str], known: int | None, given: tuple[str, ...], had: int
) -> None:
    assert _run("run", "net.safetensors", "x.npz", "--record", "run.json") == 0
    record = json.loads((folder / "run.json").read_text())
    record["settings"]["memory_mb"] = known
    (folder / "run.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert _run("bill", "run.json", "--prices", "aws/eu-west-1", *given) == 0
    assert f"workers of {had:,} MiB" in capsys.readouterr().out


def test_forecast_record_and_bill_are_for_the_memory_that_is_deployed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThreadCompute, "capabilities", ComputeCapabilities(memory_bytes=640 << 20))
    assert _run("forecast", "net.safetensors", "x.npz") == 0
    assert "fits 640 MiB" in capsys.readouterr().out
    assert _run("run", "net.safetensors", "x.npz", "--bill", "--record", "run.json") == 0
    shown = capsys.readouterr().out
    record = read_record(folder / "run.json")
    assert record.settings["memory_mb"] == 640
    usage = usage_of(record, 640 << 20)
    seconds = next(line for line in bill(usage, load_prices("aws/us-east-1")).lines if "GB-seconds" in line.item)
    assert f"{seconds.quantity:,.6g}" in shown


def test_run_with_its_bill_on_the_cheapest_channel(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("net.safetensors", "x.npz", "--workers", "3", "--channel", "auto", "--bill", "--record", "run.json")
    assert _run("run", *arguments) == 0
    shown = capsys.readouterr().out
    assert json.loads((folder / "run.json").read_text())["channel"] in ("queue", "object")
    assert "SNS publishes" in shown or "S3 PUT" in shown
    assert "total" in shown


def test_densities_in_place_of_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("forecast", "net.safetensors", "--density", "0.3", "--samples", "1000", "--workers", "2") == 0
    assert "from a sample" in capsys.readouterr().out


def test_advice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("advise", "net.safetensors", "x.npz", "--workers", "1,2", "--deadline", "100", "--model", "aws") == 0
    assert "Run it serial, in one worker" in capsys.readouterr().out
    assert _run("advise", "net.safetensors", "x.npz", "--workers", "1,2", "--budget", "1e-12") == 1
    assert "Nothing meets a budget of $1e-12" in capsys.readouterr().err


def test_calibrate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("calibrate", "-o", "model.toml") == 0
    assert "multiply-adds/s" in capsys.readouterr().out
    assert _run("forecast", "net.safetensors", "x.npz", "--workers", "2", "--model", "model.toml") == 0


def test_a_calibration_has_a_usual_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("calibrate", "local") == 0
    assert capsys.readouterr().out.startswith("local-model.toml: ")
    (folder / "local-model.toml").write_text('backend = "local"')
    assert _run("calibrate", "--config", "local-model.toml") == 2
    assert "--output would write over --config" in capsys.readouterr().err
    assert (folder / "local-model.toml").read_text() == 'backend = "local"'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("forecast", "net.safetensors"), "give either INPUTS or --density with --samples"),
        (("forecast", "net.safetensors", "--density", "0.5"), "--density needs --samples"),
        (("forecast", "net.safetensors", "--density", "x", "--samples", "5"), "--density must be numbers"),
        (("forecast", "net.safetensors", "--density", "0.5", "--samples", "5", "--exact"), "--exact needs INPUTS"),
        (("forecast", "net.safetensors", "x.npz", "--prices", "aws/moon"), "there are no prices for 'aws/moon'"),
        (("forecast", "net.safetensors", "x.npz", "--prices", "none.toml"), "none.toml: cannot be read"),
        (("forecast", "net.safetensors", "x.npz", "--model", "none"), "there is no model 'none'"),
        (("forecast", "net.safetensors", "x.npz", "--option", "arm64"), "--option must be NAME=VALUE, not 'arm64'"),
        (("forecast", "net.safetensors", "x.npz", "--memory", "16"), "a worker would need "),
        (("forecast", "none.safetensors", "x.npz"), "none.safetensors"),
        (("forecast", "net.safetensors", "x.npz", "--partition", "none.npz"), "none.npz"),
        (("advise", "net.safetensors", "x.npz", "--workers", "a"), "--workers must be whole numbers"),
        (("advise", "net.safetensors", "x.npz", "--workers", "0"), "--workers must be 1 or more, not 0"),
        (("advise", "net.safetensors", "x.npz", "--deadline", "-1"), "deadline must be above 0, not -1.0"),
        (("bill", "none.json", "--prices", "aws/us-east-1"), "none.json"),
        (("bill", "old.json", "--prices", "aws/us-east-1"), "old.json: a record of version 1; this release reads"),
        (("bill", "cut.json", "--prices", "aws/us-east-1"), "cut.json: the record does not have all counters; make it"),
        (("bill", "run.json", "--prices", "euro.toml"), "euro.toml: currency must be USD, not 'EUR'"),
        (("bill", "x.npz", "--prices", "aws/us-east-1"), "x.npz: not the record of a run"),
        (("bill", "run.json", "--prices", "short.toml"), "short.toml: there is no price 's3_get'"),
        (("bill", "run.json", "--prices", "aws/us-east-1", "--forecast", "old.json"), "old.json: not a forecast"),
        (("calibrate", "-o", "model.json"), "model.json: the name must end in .toml"),
        (("calibrate", "local", "--backend", "aws"), "BACKEND is local, and --backend aws: give one"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    make_session: SessionMaker,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    record = make_session(workers=2).load(random_network((9, 9, 9))).run(np.ones((2, 9), np.float32)).record
    (folder / "run.json").write_text(record.to_json())
    old = {name: value for name, value in json.loads(record.to_json()).items() if name != "version"}
    (folder / "old.json").write_text(json.dumps(old))
    (folder / "short.toml").write_text(_WITHOUT_GET)
    (folder / "euro.toml").write_text(_WITHOUT_GET.replace("USD", "EUR"))
    (folder / "cut.json").write_text(json.dumps(json.loads(record.to_json()) | {"counters": {}}))
    assert record.version == RECORD_VERSION
    assert _run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


_WITHOUT_GET = """
name = "short"
currency = "USD"
date = "2026-01-01"
source = "mine"
tariff = "aws"
[prices]
lambda_request = 0.0
lambda_gb_second_x86 = 0.0
sns_publish = 0.0
sns_to_sqs_byte = 0.0
sqs_request = 0.0
s3_put = 0.0
s3_list = 0.0
"""


def test_auto_is_a_channel_of_the_configuration() -> None:
    assert RunSettings(channel="auto").channel == "auto"
    for workers in (1, 3):
        with connect("local", workers=workers, channel="auto") as session:
            result = session.load(random_network((9, 9, 9))).run(random_inputs(5, 9))
        assert result.record.channel in (("serial",) if workers == 1 else ("queue", "object"))
