"""Traces: sound in form, true to the clocks, no larger than they may be."""

from __future__ import annotations

import functools
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsdcore.errors import InputError
from fsdcore.network.generate import radixnet
from fsdcore.record.file import read_record
from fsdcore.record.record import (
    ACTIVITIES,
    COUNTERS,
    WAIT,
    Record,
    Span,
    WorkerRecord,
    by_layer,
    total_counters,
    total_seconds,
)
from fsdcore.report.timelines import timeline_of
from fsdcore.report.trace import MOST_BYTES, Trace, make_trace
from fsdcore.testing import random_inputs, random_network
from tests.conftest import SessionMaker

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

_WHOLE = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
_ROW = {"pid": {"const": 1}, "tid": _WHOLE, "ts": _WHOLE, "name": {"type": "string", "minLength": 1}}


def _event(phase: str, **fields: Any) -> dict[str, Any]:
    """An event of one phase: all of its fields, and no others."""
    properties = {"ph": {"const": phase}, **_ROW, **fields}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


_ARGUMENTS = {"type": "object", "additionalProperties": {"type": ["integer", "string"]}}
_END = {"cat": {"type": "string"}, "id": _WHOLE}
SCHEMA = {
    "type": "object",
    "required": ["traceEvents", "displayTimeUnit", "otherData"],
    "additionalProperties": False,
    "properties": {
        "displayTimeUnit": {"enum": ["ms", "ns"]},
        "otherData": {"type": "object"},
        "traceEvents": {
            "type": "array",
            "items": {
                "oneOf": [
                    _event("M", args=_ARGUMENTS),
                    _event("X", dur={**_WHOLE, "minimum": 1}, args=_ARGUMENTS),
                    _event("s", **_END),
                    _event("f", bp={"const": "e"}, **_END),
                ]
            },
        },
    },
}


def check(trace: Trace) -> list[dict[str, Any]]:
    """The events, if the trace keeps all laws."""
    document = json.loads(trace.data)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    events: list[dict[str, Any]] = document["traceEvents"]
    rows = defaultdict(list)
    ends: dict[str, dict[int, dict[str, Any]]] = {"s": {}, "f": {}}
    for event in events:
        if event["ph"] == "X":
            rows[event["tid"]].append((event["ts"], event["ts"] + event["dur"], event["name"]))
        elif event["ph"] in ends:
            assert event["id"] not in ends[event["ph"]]
            ends[event["ph"]][event["id"]] = event
    for row in rows.values():
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(row))
    assert ends["s"].keys() == ends["f"].keys()
    for number, left in ends["s"].items():
        came = ends["f"][number]
        assert left["ts"] <= came["ts"]
        assert any(start <= left["ts"] < end for start, end, _ in rows[left["tid"]])
        assert any(start <= came["ts"] < end and name == "wait" for start, end, name in rows[came["tid"]])
    assert (sum(map(len, rows.values())), len(ends["s"])) == (trace.slices, trace.messages)
    assert document["otherData"]["notes"] == list(trace.notes)
    return events


def record_of(*workers: tuple[float, list[Span]], batches: int = 2, layers: int = 3) -> Record:
    """A record of workers that started when said and have these spans."""
    per_worker = [
        WorkerRecord(
            rank=rank,
            started=started,
            ended=started + 1.0,
            peak_memory_bytes=1,
            counters={name: [0] * (layers + 1) for name in COUNTERS},
            seconds={name: [0.0] * (layers + 1) for name in ACTIVITIES},
            bytes_to=[0] * len(workers),
            waits_for=[0.0] * len(workers),
            spans=spans,
        )
        for rank, (started, spans) in enumerate(workers)
    ]
    return Record(
        run_id="0" * 16,
        backend="local",
        channel="queue",
        workers=len(workers),
        layers=layers,
        samples=2,
        batches=batches,
        wall_seconds=1.0,
        counters=total_counters(per_worker),
        seconds=total_seconds(per_worker),
        per_layer=by_layer(per_worker, layers),
        per_worker=per_worker,
    )


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Records of any spans that can be, from clocks as wrong as you like."""
    count = draw(st.integers(1, 4))
    workers = []
    for _ in range(count):
        end, spans = 0, []
        for _ in range(draw(st.integers(0, 12))):
            activity, gap = draw(st.integers(0, len(ACTIVITIES) - 1)), draw(st.integers(0, 9))
            length, peer = draw(st.integers(1, 99)), draw(st.integers(-1, count - 1)) if activity == WAIT else -1
            batch, layer = draw(st.sampled_from([(-1, 0), (0, 1), (0, 2), (1, 2), (1, 3)]))
            spans.append(Span(activity, batch, layer, end + gap, length, peer))
            end += gap + length
        workers.append((1e9 + draw(st.integers(-300, 300)) / 1e6, spans))
    return record_of(*workers)


@untimed
@given(records().filter(lambda record: record.traced))
def test_any_record_gives_a_sound_trace(record: Record) -> None:
    trace = make_trace(record)
    events = check(trace)
    spent = sum(span.duration_us for worker in record.per_worker for span in worker.spans)
    assert sum(event["dur"] for event in events if event["ph"] == "X") == spent


@untimed
@given(records().filter(lambda record: record.traced), st.integers(0, 4000))
def test_a_trace_is_as_small_as_asked(record: Record, more: int) -> None:
    most = 2000 + more
    trace = make_trace(record, most)
    check(trace)
    assert len(trace.data) <= most
    if trace.slices < sum(len(worker.spans) for worker in record.per_worker):
        assert "left out" in trace.notes[-1]


@pytest.fixture
def traced(make_session: SessionMaker) -> Record:
    network = random_network((60, 64, 64, 64, 60))
    session = make_session(workers=5, trace=True, in_flight=2)
    return session.load(network).run(random_inputs(80, 60), batch_size=40).record


def test_a_run_gives_a_sound_trace_with_its_messages(traced: Record) -> None:
    trace = make_trace(traced)
    events = check(trace)
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert names == [f"rank {rank}" for rank in range(5)]
    waits = sum(span.peer >= 0 for worker in traced.per_worker for span in worker.spans)
    assert 0 < trace.messages <= waits
    assert trace.messages == waits or "have no arrow" in trace.notes[-1]
    assert json.loads(trace.data)["otherData"]["settings"]["in_flight"] == 2


def test_a_message_is_drawn_from_its_sender_to_the_wait_it_ended() -> None:
    multiply, send = ACTIVITIES.index("multiply"), ACTIVITIES.index("send")
    sender = [Span(multiply, 0, 2, 0, 10), Span(send, 0, 2, 10, 50), Span(multiply, 0, 2, 60, 99)]
    receiver = [Span(multiply, 0, 2, 0, 5), Span(WAIT, 0, 2, 5, 65, 0), Span(WAIT, -1, 0, 100, 100, 0)]
    record = record_of((1.0, sender), (1.0, receiver), batches=1)
    record.per_worker[0].counters["bytes_sent"][2] = 77
    events = check(make_trace(record))
    arrows = [(event["ph"], event["tid"], event["ts"]) for event in events if event["ph"] in "sf"]
    assert arrows == [("s", 1, 59), ("f", 2, 69), ("s", 1, 158), ("f", 2, 199)]
    slices = {(event["tid"], event["ts"]): event["args"] for event in events if event["ph"] == "X"}
    assert slices[1, 10] == {"layer": 2, "batch": 0, "bytes": 77}
    assert slices[2, 5] == {"layer": 2, "batch": 0, "for rank": 0}
    assert slices[2, 100] == {"for rank": 0}


@settings(untimed, max_examples=20)
@given(skews=st.lists(st.integers(-(10**7), 10**7), min_size=5, max_size=5))
def test_clocks_that_differ_turn_no_message_back(traced: Record, skews: list[int]) -> None:
    straight = timeline_of(traced)
    skewed = msgspec.structs.replace(
        traced,
        per_worker=[
            msgspec.structs.replace(worker, started=worker.started + skew / 1e6, ended=worker.ended + skew / 1e6)
            for worker, skew in zip(traced.per_worker, skews, strict=True)
        ],
    )
    made = timeline_of(skewed)
    assert len(made.flows) == len(straight.flows)
    check(make_trace(skewed))
    assert not made.later or "shown later" in make_trace(skewed).notes[0]


def test_a_rank_is_shown_later_by_as_little_as_will_do() -> None:
    encode = ACTIVITIES.index("encode")
    record = record_of((5.0, [Span(encode, 0, 2, 100, 10)]), (4.0, [Span(WAIT, 0, 2, 0, 30, 0)]))
    made = timeline_of(record)
    assert made.later == {1: 1_000_071}
    # From the start of the first as they are shown.
    assert (made.slices[0].start, made.slices[1].last) == (100, 100)


def test_a_record_without_a_trace_says_how_to_get_one(make_session: SessionMaker) -> None:
    record = make_session(workers=2).load(random_network((8, 8, 8))).run(random_inputs(4, 8)).record
    with pytest.raises(InputError, match="has no trace: run again with fsd run --trace"):
        make_trace(record)


@pytest.mark.parametrize(
    ("span", "problem"),
    [
        (Span(6, 0, 1, 0, 9), "no activity 6"),
        (Span(-1, 0, 1, 0, 9), "no activity -1"),
        (Span(0, 2, 1, 0, 9), "no batch 2"),
        (Span(0, 0, 4, 0, 9), "no layer 4"),
        (Span(WAIT, 0, 1, 0, 9, -2), "no rank -2"),
        (Span(WAIT, 0, 1, 0, 9, 1), "no rank 1"),
        (Span(0, 0, 1, 0, 0), "takes no time"),
        (Span(0, 0, 1, -5, 9), "begins before"),
    ],
)
def test_spans_that_cannot_be_are_refused(span: Span, problem: str) -> None:
    with pytest.raises(InputError, match=f"worker 0 of the record, span 0: .*{problem}"):
        make_trace(record_of((1.0, [span])))


_JUNK: list[Any] = [None, -1, 0, 10**30, 1e300, 1.5, "x", [], {}, True]


def _places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to everything in a document."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*way, key)
        if isinstance(part, (dict, list)):
            yield from _places(part, (*way, key))


@settings(untimed, max_examples=300)
@given(data=st.data())
def test_a_damaged_record_gives_a_sound_trace_or_is_refused(
    traced: Record, tmp_path: Path, data: st.DataObject
) -> None:
    document = json.loads(traced.to_json())
    *way, last = data.draw(st.sampled_from([*_places(document)]))
    holder = functools.reduce(lambda part, key: part[key], way, document)
    if data.draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = data.draw(st.sampled_from(_JUNK))
    (tmp_path / "run.json").write_text(json.dumps(document))
    try:
        trace = make_trace(read_record(tmp_path / "run.json"))
    except InputError as error:
        assert "\n" not in str(error)
    else:
        check(trace)


@pytest.mark.parametrize(
    ("worker", "problem"),
    [
        ({"started": 1e12, "ended": 1e12}, "seconds or counters that no run can have"),
        ({"started": -1.0}, "seconds or counters that no run can have"),
        ({"counters": {}}, "worker 0 of the record does not have the numbers"),
        ({"spans": [Span(0, 0, 1, 1 << 60, 9)]}, "worker 0 of the record, span 0: it ends later than can be"),
    ],
)
def test_workers_that_cannot_be_are_refused(worker: dict[str, Any], problem: str) -> None:
    record = record_of((1.0, [Span(0, 0, 1, 0, 9)]))
    bent = msgspec.structs.replace(record.per_worker[0], **worker)
    with pytest.raises(InputError, match=problem):
        make_trace(msgspec.structs.replace(record, per_worker=[bent]))


def test_ranks_that_are_missing_are_refused(traced: Record) -> None:
    with pytest.raises(InputError, match="the record has 4 workers of 5"):
        make_trace(msgspec.structs.replace(traced, per_worker=traced.per_worker[1:]))


def test_a_limit_that_holds_no_names_is_refused(traced: Record) -> None:
    with pytest.raises(InputError, match="a trace of 5 ranks does not fit 100 bytes"):
        make_trace(traced, 100)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_trace_of_62_ranks_and_120_layers_opens_anywhere(make_session: SessionMaker) -> None:
    session = make_session(workers=62, trace=True, deadline_seconds=300.0)
    record = session.load(radixnet(1024, 120)).run(random_inputs(500, 1024, density=0.2)).record
    trace = make_trace(record)
    check(trace)
    assert trace.slices > 62 * 120
    assert len(trace.data) <= MOST_BYTES
