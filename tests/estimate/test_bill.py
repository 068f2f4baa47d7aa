"""The cost model: against the authors' bills, and by laws."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.contracts.channel import Outgoing
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.estimate.bill import METERS, TariffLine, Usage, bill, load_prices, usage_of
from fsdcore.messages.packing import pack
from fsdcore.record.record import BLOCK_BYTES, COUNTERS
from fsdcore.testing import random_inputs, random_network
from tests.conftest import SessionMaker
from tests.shared_data import shared_data


def paper_lines(name: str) -> list[dict[str, Any]]:
    """The lines of one of the authors' tables."""
    data = shared_data()
    if data is None:
        pytest.skip("needs the authors' figures in ../shared/data")
    with (data / "paper" / name).open() as stream:
        return list(csv.DictReader(stream))


def paper_usage(line: dict[str, Any], channel: str) -> Usage:
    """What a line of the authors' tables used: their workers and one coordinator."""
    counters = dict.fromkeys(COUNTERS, 0) | {"invocations": int(line["workers"]) + 1}
    if channel == "queue":
        counters |= {"blocks_sent": int(line["publish_requests_billed"]), "publishes": int(line["publish_calls"])}
        counters |= {"bytes_sent": int(line["bytes_sent"]), "receives": int(line["receive_calls"])}
    else:
        counters |= {name: int(line[name]) for name in ("puts", "gets", "lists")}
    return Usage(channel, counters, [float(line["lambda_runtime_s"])], int(line["memory_mb"]) << 20)


@pytest.mark.parametrize(
    ("table", "channel", "columns"),
    [
        ("queue_runs.csv", "queue", {"cost_lambda_usd": "Lambda", "cost_sns_usd": "SNS", "cost_sqs_usd": "SQS"}),
        ("object_runs.csv", "object", {"cost_lambda_usd": "Lambda", "cost_s3_usd": "S3"}),
    ],
)
def test_every_cost_column_of_the_authors(table: str, channel: str, columns: dict[str, str]) -> None:
    prices = load_prices("paper/icde-2024")
    for line in paper_lines(table):
        found = bill(paper_usage(line, channel), prices)
        for column, service in columns.items():
            dollars = sum(item.dollars for item in found.lines if item.item.startswith(service))
            assert dollars == pytest.approx(float(line[column]), rel=1e-3), (line["config"], column)
        assert found.total == pytest.approx(float(line["cost_total_usd"]), rel=1e-3)


def test_seconds_are_rounded_up_for_each_worker() -> None:
    usage = Usage("serial", dict.fromkeys(COUNTERS, 0), [0.3, 0.31, 0.001], 1 << 30)
    line = TariffLine(item="", meter="memory_seconds", price="", round_seconds=0.1)
    assert METERS["memory_seconds"](usage, line) == pytest.approx(0.3 + 0.4 + 0.1)


@given(st.lists(st.floats(0, 1e4), min_size=1), st.sampled_from([0.001, 0.1, 1.0]))
def test_rounding_adds_less_than_a_step_for_each_worker(seconds: list[float], step: float) -> None:
    usage = Usage("serial", {}, seconds, 1 << 30)
    line = TariffLine(item="", meter="memory_seconds", price="", round_seconds=step)
    billed = METERS["memory_seconds"](usage, line)
    assert sum(seconds) - 1e-4 * step * len(seconds) - 1e-9 <= billed
    assert billed <= sum(seconds) + step * len(seconds) + 1e-6


@given(st.lists(st.integers(1, 250_000), min_size=1, max_size=40))
def test_the_bound_on_steps_holds_where_they_are_not_counted(sizes: list[int]) -> None:
    limits = ChannelCapabilities(max_frame_bytes=256_000, max_publish_frames=10, max_publish_bytes=256_000)
    publishes = [
        sum(len(frame.data) for frame in each) for each in pack((Outgoing(0, bytes(n)) for n in sizes), limits)
    ]
    counted = sum(max(1, -(-size // 65_536)) for size in publishes)
    counters = {"publishes": len(publishes), "bytes_sent": sum(sizes)}
    line = TariffLine(item="", meter="publish_steps", price="")
    assert METERS["publish_steps"](Usage("queue", counters, [], 0), line) >= counted
    assert METERS["publish_steps"](Usage("queue", {**counters, "blocks_sent": counted}, [], 0), line) == counted


def test_small_requests_are_billed_their_minimum() -> None:
    counters = {"publishes": 10, "acknowledges": 5, "bytes_sent": 600}
    line = TariffLine(item="", meter="bytes_published", price="", minimum_bytes=1000)
    assert METERS["bytes_published"](Usage("queue", counters, [], 0), line) == 10_000
    assert METERS["bytes_delivered"](Usage("queue", counters, [], 0), line) == 5_000


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_the_bill_of_a_run(make_session: SessionMaker, channel: str) -> None:
    record = (
        make_session(workers=3, channel=channel).load(random_network((20, 20, 20))).run(random_inputs(9, 20)).record
    )
    usage = usage_of(record, 1 << 30)
    quantities = {line.item: line.quantity for line in bill(usage, load_prices("aws/us-east-1")).lines}
    assert quantities["S3 PUT"] == record.counters["puts"]
    assert quantities["Lambda requests"] == 3
    assert ("SNS publishes, 64 KB steps" in quantities) == (channel == "queue")
    # Every publish here is far below a block, so each is one.
    assert record.counters["blocks_sent"] == record.counters["publishes"]
    assert len(usage.worker_seconds) == 3


def test_blocks_are_counted_by_publish(make_session: SessionMaker) -> None:
    network = random_network((400, 400, 400), density=0.05)
    inputs = np.random.default_rng(0).random((400, 400), dtype=np.float32)
    counters = make_session(workers=2).load(network).run(inputs).record.counters
    assert counters["bytes_sent"] // BLOCK_BYTES < counters["blocks_sent"]
    assert counters["blocks_sent"] <= counters["bytes_sent"] // BLOCK_BYTES + counters["publishes"]
    assert counters["blocks_sent"] > counters["publishes"]
