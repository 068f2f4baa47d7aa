"""Counters and seconds: nothing is lost, and each is where it belongs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fsdcore.record import ACTIVITIES, COUNTERS, Recorder, by_layer, total_counters, total_seconds


def test_counts_go_to_the_present_layer() -> None:
    recorder = Recorder(2)
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
    recorder = Recorder(0)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: recorder.add("puts"), range(2_000)))
    assert total_counters([recorder.finish(0)])["puts"] == 2_000


def test_time_is_counted_where_it_began_even_if_the_block_fails() -> None:
    def fail(recorder: Recorder) -> None:
        with recorder.timed("wait"):
            recorder.layer = 2
            raise KeyError

    recorder = Recorder(0, 2)
    recorder.layer = 1
    with pytest.raises(KeyError):
        fail(recorder)
    seconds = recorder.finish(0).seconds["wait"]
    assert seconds[0] == seconds[2] == 0.0


def test_layers_and_totals_add_up() -> None:
    records = []
    for rank in range(3):
        recorder = Recorder(rank, 2)
        for recorder.layer in range(3):
            recorder.add("frames", rank + recorder.layer)
            with recorder.timed("send"):
                pass
        records.append(recorder.finish(0))
    layers = by_layer(records, 2)
    assert [layer["counters"]["frames"] for layer in layers] == [3, 6, 9]
    assert total_counters(records)["frames"] == 18
    assert total_seconds(records)["send"] == pytest.approx(sum(layer["seconds"]["send"] for layer in layers), abs=1e-5)
