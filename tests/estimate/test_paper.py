"""The forecast of the authors' runs, fitted on half of them, against what they measured on the other half."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fsdcore.errors import InputError
from fsdcore.estimate.bill import Usage, bill, load_prices
from fsdcore.estimate.calibrate import EvenRun, even_timeline, fit_model
from fsdcore.estimate.speeds import Model, load_model
from tests.estimate.test_bill import paper_lines, paper_usage

_LAYERS, _SAMPLES, _PER_NEURON = 120, 10_000, 32
_TABLES = {"queue": "queue_runs.csv", "object": "object_runs.csv"}


def even_run(line: dict[str, Any], channel: str) -> EvenRun:
    """A line of the authors' tables: what its send maps and densities determine, and its seconds."""
    workers = int(line["workers"])
    messages, size = ("messages_sent", "bytes_sent") if channel == "queue" else ("puts", "bytes_written")
    return EvenRun(
        channel=channel,
        workers=workers,
        layers=_LAYERS,
        multiply_adds=int(line["neurons"]) * _PER_NEURON * _LAYERS * _SAMPLES / workers,
        bytes_sent=int(line[size]) / workers,
        messages=int(line[messages]) / workers,
        seconds=float(line["lambda_runtime_s"]) / workers,
    )


def halves(first: int) -> tuple[list[EvenRun], list[EvenRun]]:
    """Every other line of each table, and the rest."""
    lines = {channel: [even_run(line, channel) for line in paper_lines(name)] for channel, name in _TABLES.items()}
    return (
        [run for runs in lines.values() for run in runs[first::2]],
        [run for runs in lines.values() for run in runs[1 - first :: 2]],
    )


def fitted(runs: list[EvenRun]) -> Model:
    return fit_model(runs, "half", "2026-11-24", "half of the authors' runs")


def errors(model: Model, runs: list[EvenRun]) -> list[float]:
    """By how much the forecast seconds of a worker are off, relative."""
    return [abs(even_timeline(run, model).worker_seconds.mean() / run.seconds - 1) for run in runs]


@pytest.mark.parametrize("first", [0, 1])
def test_seconds_of_the_other_half(first: int) -> None:
    known, other = halves(first)
    assert np.median(errors(fitted(known), other)) <= 0.25


def _messages_of_a_layer(line: dict[str, Any]) -> float:
    return int(line["messages_sent"]) / int(line["workers"]) / _LAYERS


def _gathered(lines: list[dict[str, Any]]) -> float:
    """How many more messages a receive brings for each that a worker sends in a layer."""
    each = [
        (int(line["messages_sent"]) / int(line["receive_calls"]) - 1) / _messages_of_a_layer(line) for line in lines
    ]
    return float(np.median(each))


def _forecast_dollars(line: dict[str, Any], channel: str, model: Model, looks: float, gathered: float) -> float:
    """The bill of a line had it not been run: requests that depend on time are forecast as well."""
    usage = paper_usage(line, channel)
    seconds = even_timeline(even_run(line, channel), model).worker_seconds
    counters = dict(usage.counters)
    if channel == "queue":
        together = min(10.0, 1 + gathered * _messages_of_a_layer(line))
        counters["receives"] = round(int(line["messages_sent"]) / together)
    else:
        counters |= {"gets": counters["puts"], "lists": round(looks * seconds.sum())}
    return bill(Usage(channel, counters, seconds.tolist(), usage.memory_bytes), load_prices("paper/icde-2024")).total


@pytest.mark.parametrize("first", [0, 1])
def test_which_channel_is_cheaper(first: int) -> None:
    tables = {channel: paper_lines(name) for channel, name in _TABLES.items()}
    objects = {line["config"].removesuffix("_S3"): line for line in tables["object"]}
    pairs = [(line, objects.get(line["config"].removesuffix("_SQS"))) for line in tables["queue"]]
    known = tables["object"][first::2]
    looks = float(np.median([int(line["lists"]) / float(line["lambda_runtime_s"]) for line in known]))
    gathered = _gathered(tables["queue"][first::2])
    model = fitted(halves(first)[0])
    right = []
    for queue, other in pairs:
        if other is None:
            continue
        both = ((queue, "queue"), (other, "object"))
        forecast = [_forecast_dollars(line, kind, model, looks, gathered) for line, kind in both]
        actual = [float(line["cost_total_usd"]) for line in (queue, other)]
        right.append((forecast[0] < forecast[1]) == (actual[0] < actual[1]))
    assert len(right) == 9
    assert np.mean(right) >= 0.9


def test_the_model_that_comes_with_the_project_is_that_of_all_runs() -> None:
    known, other = halves(0)
    shipped, again = load_model("paper"), fitted([*known, *other])
    assert shipped.compute.multiply_rate == pytest.approx(again.compute.multiply_rate, rel=1e-4)
    for kind, channel in again.channels.items():
        for name in ("send_seconds", "delivery_seconds", "bytes_per_second"):
            assert getattr(shipped.channels[kind], name) == pytest.approx(getattr(channel, name), rel=1e-4)


def test_too_few_runs_are_refused() -> None:
    runs = [EvenRun("queue", 2, 3, 1e9, 1e6, 10, 1.0)] * 2
    with pytest.raises(InputError, match="fewer than 3 runs over 'queue'"):
        fit_model(runs, "few", "", "")


def test_a_model_is_found_again() -> None:
    rng = np.random.default_rng(0)
    plain = [
        EvenRun("queue", 4, 10, *(rng.random(3) * [1e10, 1e8, 1e4]).tolist(), seconds=1.0)  # type: ignore[misc]
        for _ in range(8)
    ]
    truth = fit_model(
        [EvenRun("queue", 4, 10, 2e9 * k, 1e7 * (4 - k) ** 2, 100.0 * k**3, 3.0 * k) for k in range(1, 6)], "", "", ""
    )
    runs = [
        EvenRun(
            r.channel,
            4,
            10,
            r.multiply_adds,
            r.bytes_sent,
            r.messages,
            float(even_timeline(r, truth).worker_seconds[0]),
        )
        for r in plain
    ]
    again = fit_model(runs, "", "", "")
    assert max(errors(again, runs)) < 1e-6
