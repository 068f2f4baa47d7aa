"""Counters and seconds: nothing is lost, and each is where it belongs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
import pytest

from fsdcore.clock import SYSTEM_CLOCK, SystemClock
from fsdcore.errors import FormatError
from fsdcore.record.file import read_record
from fsdcore.record.record import (
    ACTIVITIES,
    COUNTERS,
    RECORD_VERSION,
    Record,
    SpanLog,
    by_layer,
    total_counters,
    total_seconds,
)
from fsdcore.record.recorder import Recorder
from fsdcore.report.trace import make_trace
from fsdcore.testing import random_inputs, random_network
from tests.conftest import SessionMaker


def test_counts_go_to_the_present_layer() -> None:
    recorder = Recorder(SYSTEM_CLOCK, 2)
    recorder.add("invocations", 3)
    recorder.set_layers(2)
    recorder.layer = 2
    recorder.add("messages")
    record = recorder.finish(7)
    assert (record.rank, record.peak_memory_bytes) == (2, 7)
    assert record.counters["invocations"] == [3, 0, 0]
    assert record.counters["messages"] == [0, 0, 1]
    assert tuple(record.counters) == COUNTERS
    assert tuple(record.seconds) == ACTIVITIES
    assert record.started <= record.ended


def test_counts_of_many_threads_all_arrive() -> None:
    recorder = Recorder(SYSTEM_CLOCK, 0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: recorder.add("puts"), range(2_000)))
    assert total_counters([recorder.finish(0)])["puts"] == 2_000


def test_time_is_counted_where_it_began_even_if_the_block_fails() -> None:
    def fail(recorder: Recorder) -> None:
        with recorder.timed("wait"):
            recorder.layer = 2
            raise KeyError

    recorder = Recorder(SYSTEM_CLOCK, 0, 2)
    recorder.layer = 1
    with pytest.raises(KeyError):
        fail(recorder)
    seconds = recorder.finish(0).seconds["wait"]
    assert seconds[0] == seconds[2] == 0.0


class _Interrupted(SystemClock):
    """Three readings a look; in the first, a second passes between the two clocks."""

    def __init__(self) -> None:
        self._readings = iter([10.0, 11.5, 12.0, *(12.0 + step / 1e6 for step in range(20))])

    def now(self) -> float:
        return next(self._readings)

    def wall(self) -> float:
        return 1000.0 + next(self._readings)


def test_an_interrupted_look_at_the_clocks_does_not_count() -> None:
    recorder = Recorder(_Interrupted(), 0, traced=True)
    recorder.trace("load", (0, 1), 13.0, 14.0)
    record = recorder.finish(0)
    assert record.started == pytest.approx(1012.0, abs=1e-3)
    assert record.spans[0].start_us == pytest.approx(1e6, abs=20)


def test_layers_and_totals_add_up() -> None:
    records = []
    for rank in range(3):
        recorder = Recorder(SYSTEM_CLOCK, rank, 2)
        for recorder.layer in range(3):
            recorder.add("frames", rank + recorder.layer)
            with recorder.timed("send"):
                pass
        records.append(recorder.finish(0))
    layers = by_layer(records, 2)
    assert [layer["counters"]["frames"] for layer in layers] == [3, 6, 9]
    assert total_counters(records)["frames"] == 18
    assert total_seconds(records)["send"] == pytest.approx(sum(layer["seconds"]["send"] for layer in layers), abs=1e-5)


def test_messages_and_waits_are_counted_by_peer() -> None:
    recorder = Recorder(SYSTEM_CLOCK, 1, 2, workers=4)
    recorder.layer = 2
    recorder.sent(3, 100)
    recorder.sent(3, 11)
    recorder.sent(0, 0)
    with recorder.waiting(0, (0, 2)) as waiting:
        waiting.ended_by(2, (0, 2))
    record = recorder.finish(0)
    assert record.counters["messages"] == [0, 0, 3]
    assert record.bytes_to == [0, 0, 0, 111]
    assert [seconds > 0 for seconds in record.waits_for] == [False, False, True, False]
    assert record.waits_for[2] == record.seconds["wait"][2]
    assert record.spans == []


def _run(make_session: SessionMaker, trace: bool, workers: int = 4, **settings: object) -> Record:
    session = make_session(workers=workers, trace=trace, in_flight=2, **settings)
    return session.load(random_network((20, 24, 24, 20))).run(random_inputs(30, 20), batch_size=10).record


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_what_goes_to_peers_adds_up(make_session: SessionMaker, channel: str) -> None:
    record = _run(make_session, trace=False, channel=channel)
    for worker in record.per_worker:
        assert len(worker.bytes_to) == len(worker.waits_for) == record.workers
        assert worker.bytes_to[worker.rank] == worker.waits_for[worker.rank] == 0
        assert sum(worker.waits_for) == pytest.approx(sum(worker.seconds["wait"]), abs=2e-5)
        assert 0 < sum(worker.bytes_to) < sum(worker.counters["bytes_sent"])
    headers = 42 * record.counters["frames"]
    assert sum(sum(worker.bytes_to) for worker in record.per_worker) == record.counters["bytes_sent"] - headers


def test_a_run_with_more_spans_than_a_record_holds_ends_well(
    make_session: SessionMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsdcore.record.recorder.SpanLog", partial(SpanLog, most=5))
    record = _run(make_session, trace=True)
    assert [len(worker.spans) for worker in record.per_worker] == [5] * 4
    assert all(worker.spans_dropped > 0 for worker in record.per_worker)
    (note,) = (note for note in make_trace(record).notes if "not kept" in note)
    assert (
        f"4 ranks had more spans than a record holds: the last {sum(w.spans_dropped for w in record.per_worker)}"
        in note
    )


def test_a_traced_worker_says_when_it_did_what(make_session: SessionMaker) -> None:
    record = _run(make_session, trace=True)
    for worker in record.per_worker:
        spent = sum(span.duration_us for span in worker.spans)
        assert spent == pytest.approx(1e6 * sum(map(sum, worker.seconds.values())), rel=0.02, abs=500)
        assert worker.spans[-1].start_us + worker.spans[-1].duration_us <= 1e6 * (worker.ended - worker.started) + 1000
        assert {(span.batch, span.layer) for span in worker.spans} <= {
            (-1, 0),
            *((b, k) for b in range(3) for k in (1, 2, 3)),
        }
        assert all(span.peer == -1 or ACTIVITIES[span.activity] == "wait" for span in worker.spans)


def test_a_record_says_how_the_run_was_configured(make_session: SessionMaker) -> None:
    settings = _run(make_session, trace=False, branching=2).settings
    expected = {"workers": 4, "batch_size": 10, "in_flight": 2, "branching": 2, "method": "block", "trace": False}
    assert settings.items() >= expected.items()
    assert "path" not in settings, "where a user keeps the store is no reader's business"


@pytest.mark.parametrize("trace", [False, True])
def test_a_record_is_read_as_it_was_written(make_session: SessionMaker, tmp_path: Path, trace: bool) -> None:
    record = _run(make_session, trace=trace)
    file = tmp_path / "run.json"
    file.write_text(record.to_json())
    assert read_record(file) == record
    assert record.traced == trace


def test_a_record_of_another_version_is_refused(make_session: SessionMaker, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    old = msgspec.structs.replace(_run(make_session, trace=False, workers=1), version=RECORD_VERSION - 1)
    file.write_text(old.to_json())
    with pytest.raises(FormatError, match=rf"run\.json.*version {RECORD_VERSION - 1}; this release reads"):
        read_record(file)


def test_a_trace_changes_no_output_and_no_count(make_session: SessionMaker) -> None:
    network, x = random_network((40, 48, 48, 48, 40)), random_inputs(60, 40).toarray()
    results = [make_session(workers=8, trace=trace).load(network).run(x, batch_size=20) for trace in (False, True)]
    assert results[0].outputs.tobytes() == results[1].outputs.tobytes()
    told = ("rows_sent", "nonzeros_sent", "messages", "frames", "publishes", "bytes_sent", "blocks_sent")
    assert len({tuple(result.record.counters[name] for name in told) for result in results}) == 1
