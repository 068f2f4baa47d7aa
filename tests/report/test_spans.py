"""The spans of a timeline: all time is kept, however few are drawn."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.record.record import ACTIVITIES, Record
from fsdcore.report import report
from fsdcore.report.timelines import Spans, spans_of, timeline_data
from fsdcore.report.trace import make_trace
from tests.report.records import changed, made_record

_ACTIVITY, _LAYER, _START, _DURATION, _PEER = 0, 2, 3, 4, 5


def by_activity(spans: Spans) -> list[int]:
    totals = np.bincount(spans[:, _ACTIVITY], spans[:, _DURATION], len(ACTIVITIES))
    return [round(total) for total in totals.tolist()]


def timed(record: Record, rank: int) -> list[int]:
    worker = record.per_worker[rank]
    return [round(1e6 * sum(worker.seconds[name])) for name in ACTIVITIES]


@pytest.mark.parametrize("traced", [True, False])
@given(workers=st.integers(1, 4), layers=st.integers(1, 8), seed=st.integers(0, 20))
def test_the_spans_of_a_rank_are_its_seconds(traced: bool, workers: int, layers: int, seed: int) -> None:
    record = made_record(workers, layers, traced, seed)
    drawn = spans_of(record)
    assert (drawn.traced, drawn.merged_us) == (traced, 0)
    for rank, spans in drawn.ranks.items():
        assert by_activity(spans) == timed(record, rank)
        assert (spans[:, _START] >= 10_000 * rank - 1).all()


@given(most=st.integers(30, 200), seed=st.integers(0, 20))
def test_with_fewer_spans_no_time_is_lost(most: int, seed: int) -> None:
    record = made_record(3, 20, True, seed)
    drawn = spans_of(record, most)
    assert sum(map(len, drawn.ranks.values())) <= most
    assert drawn.merged_us > 0
    for rank, spans in drawn.ranks.items():
        assert by_activity(spans) == timed(record, rank)
        # None lies over another, as none did before.
        assert (np.diff(spans[:, _START]) >= spans[:-1, _DURATION]).all()
        assert spans[-1, _START] + spans[-1, _DURATION] <= 10_000 * rank + sum(timed(record, rank)) + 1


def test_long_spans_are_drawn_as_they_were() -> None:
    record = made_record(2, 20, True)
    few, all_ = spans_of(record, 150), spans_of(record)
    for fewer, spans in zip(few.ranks.values(), all_.ranks.values(), strict=True):
        long = {tuple(row) for row in spans.tolist() if row[_DURATION] >= few.merged_us}
        assert long <= {tuple(row) for row in fewer.tolist()}


def test_without_a_trace_layers_follow_one_another() -> None:
    for spans in spans_of(made_record(3, 9)).ranks.values():
        assert (np.diff(spans[:, _LAYER]) >= 0).all()
        ends = spans[:-1, _START] + spans[:-1, _DURATION]
        assert (spans[1:, _START] == ends).all()
        assert (spans[:, _PEER] == -1).all()


def test_the_page_gets_steps_from_start_to_start() -> None:
    record = made_record(3, 4, True)
    data = timeline_data(record)
    assert data["activities"] == [*ACTIVITIES, "other"]
    for rank, worker in zip(data["ranks"], record.per_worker, strict=True):
        starts = itertools.accumulate(rank["spans"][3::6])
        offset = rank["start"]
        assert [start - offset for start in starts] == [span.start_us for span in worker.spans]
        assert rank["spans"][4::6] == [span.duration_us for span in worker.spans]
        assert rank["end"] - rank["start"] == pytest.approx(1e6 * (worker.ended - worker.started), abs=2)


def test_where_clocks_differ_page_and_trace_place_spans_alike() -> None:
    """The clock of rank 1 is late by a second, and it waits for what others sent; so it is shown later, in both."""
    record = made_record(3, 4, True)
    first = record.per_worker[1]
    record = changed(record, 1, started=first.started - 1.0, ended=first.ended - 1.0)
    page = report(record)
    data = json.loads(page.split('id="run-data"')[1].split(">", 1)[1].split("</script>")[0])
    drawn = {rank["rank"]: list(itertools.accumulate(rank["spans"][3::6])) for rank in data["ranks"]}
    traced: dict[int, list[int]] = {}
    for event in json.loads(make_trace(record).data)["traceEvents"]:
        if event["ph"] == "X":
            traced.setdefault(event["tid"] - 1, []).append(event["ts"])
    assert drawn == traced
    assert "shown later, by up to" in page
    assert all(rank["end"] > rank["start"] >= 0 for rank in data["ranks"])
