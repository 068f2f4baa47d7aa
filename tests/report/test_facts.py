"""What a record says of a run: shares add up, the rank that stands out is named, and why."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.record.record import Record, WorkerRecord
from fsdcore.report.facts import (
    CAUSES,
    activity_seconds,
    awaited,
    cause,
    density,
    ends,
    last_rank,
    lifetime,
    received,
    verdict,
)
from fsdcore.report.stragglers import findings
from tests.report.records import BEYOND, changed, made_record


def even(workers: int = 5, layers: int = 3) -> Record:
    """A record whose workers all do the same."""
    record = made_record(workers, layers)
    first = record.per_worker[0]
    same = [msgspec.structs.replace(first, rank=rank, waits_for=[0.1] * workers) for rank in range(workers)]
    return msgspec.structs.replace(record, per_worker=same)


def spending(worker: WorkerRecord, activity: str, more: float) -> dict[str, list[float]]:
    """The worker's seconds with `more` of an activity in layer 1."""
    row = list(worker.seconds[activity])
    row[1] += more
    return {**worker.seconds, activity: row}


@given(workers=st.integers(1, 6), layers=st.integers(1, 6), seed=st.integers(0, 50))
def test_shares_add_up_and_so_do_the_seconds_of_all_lives(workers: int, layers: int, seed: int) -> None:
    record = made_record(workers, layers, seed=seed)
    found, spent = verdict(record), activity_seconds(record)
    assert math.fsum(found.shares.values()) == pytest.approx(1)
    assert found.seconds == pytest.approx(math.fsum(map(lifetime, record.per_worker)), abs=1e-5)
    assert spent["other"] == pytest.approx(BEYOND * workers, abs=1e-5)
    for name, seconds in record.seconds.items():
        assert spent[name] == pytest.approx(seconds, abs=1e-5)


@pytest.mark.parametrize(
    ("activity", "word"),
    [
        ("multiply", "computing"),
        ("wait", "communicating"),
        ("encode", "communicating"),
        ("decode", "communicating"),
        ("send", "communicating"),
        ("load", "loading"),
    ],
)
def test_the_word_is_what_took_most(activity: str, word: str) -> None:
    record = made_record(3)
    for rank, worker in enumerate(record.per_worker):
        record = changed(record, rank, seconds=spending(worker, activity, 50.0), ended=worker.ended + 50.0)
    assert verdict(record).word == word


def test_about_equal_shares_are_said_to_be_so() -> None:
    record = made_record(1)
    seconds = {name: [0.0] * 6 for name in record.per_worker[0].seconds} | {"multiply": [0, 1, 0, 0, 0, 0]}
    seconds["wait"] = [0, 0, 1.01, 0, 0, 0]
    assert verdict(changed(record, 0, seconds=seconds)).word == "both"


def test_a_run_of_no_time_is_neither() -> None:
    record = made_record(1)
    nothing = {name: [0.0] * 6 for name in record.per_worker[0].seconds}
    empty = changed(record, 0, seconds=nothing, ended=record.per_worker[0].started)
    assert verdict(empty).word == "nothing"
    assert set(verdict(empty).shares.values()) == {0.0}


def test_density_is_of_all_values_of_the_rows() -> None:
    record = made_record(3)
    counters = record.per_layer[2]["counters"]
    found = density(record, 2)
    assert found == pytest.approx(counters["nonzeros_sent"] / (counters["rows_sent"] * 1000 / 2))
    counters["rows_sent"] = 0
    assert density(record, 2) is None


def test_bytes_and_waits_are_summed_by_the_other_rank() -> None:
    record = made_record(5)
    assert sum(received(record)) == sum(sum(worker.bytes_to) for worker in record.per_worker)
    assert received(record)[3] == sum(worker.bytes_to[3] for worker in record.per_worker)
    assert awaited(record)[2] == pytest.approx(sum(worker.waits_for[2] for worker in record.per_worker))


@pytest.mark.parametrize(
    ("activity", "what"),
    [
        ("multiply", "computed longer"),
        ("encode", "took longer to encode and send"),
        ("send", "took longer to encode and send"),
        ("decode", "took longer to decode"),
        ("wait", "waited longer itself"),
        ("load", "loaded longer"),
    ],
)
def test_the_cause_is_what_a_rank_does_longer_than_the_median(activity: str, what: str) -> None:
    record = even()
    worker = record.per_worker[3]
    late = changed(record, 3, seconds=spending(worker, activity, 2.0), ended=worker.ended + 2.0)
    found = cause(late, 3)
    assert found is not None
    assert (found.what, round(found.seconds, 6)) == (what, 2.0)
    assert cause(late, 1) is None
    assert last_rank(late) == 3
    assert f"Rank 3 ends last, 2.00\u00a0s after the median rank: it {what} than the median rank" in findings(late)[0]


def test_a_rank_that_started_later_is_not_blamed_for_its_work() -> None:
    record = even()
    worker = record.per_worker[2]
    late = changed(record, 2, started=worker.started + 1.0, ended=worker.ended + 1.0)
    found = cause(late, 2)
    assert found is not None
    assert found.what == "started later"
    assert ends(late)[2] == pytest.approx(1.0 + lifetime(worker))


def test_the_rank_that_is_waited_for_most_is_named_if_it_stands_out() -> None:
    record = even()
    assert "No rank is waited for much more than others" in findings(record)[1]
    for rank in range(5):
        record = changed(record, rank, waits_for=[0.1, 0.1, 0.1, 0.1, 0.9])
    assert findings(record)[1].startswith("Rank 4 is waited for most (4.50\u00a0s of 6.50\u00a0s, 69\u00a0%)")
    for rank in range(5):
        record = changed(record, rank, waits_for=[0.0] * 5)
    assert findings(record)[1] == "The record does not say who was waited for."
    for rank, worker in enumerate(record.per_worker):
        record = changed(record, rank, seconds={**worker.seconds, "wait": [0.0] * 4})
    assert findings(record)[1] == "No worker waited for another."


def test_one_worker_has_no_stragglers() -> None:
    assert findings(made_record(1)) == ["One worker: nobody waits for anybody."]


def test_every_cause_goes_on_from_the_same_word() -> None:
    assert all(what.split()[1] in ("later", "longer") or "longer" in what for what in CAUSES)
