"""A record that no run can have written is told in one line, and never ends in anything else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsdcore.errors import InputError
from fsdcore.record.file import check
from fsdcore.record.record import Record
from fsdcore.report import report
from tests.report.records import changed, made_record


@pytest.mark.parametrize(
    "record", [made_record(1), made_record(5, traced=True), made_record(2, 1, batches=0, samples=0)]
)
def test_what_runs_write_is_sound(record: Record) -> None:
    check(record)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (msgspec.structs.replace(made_record(3), workers=4), "the record has 3 workers of 4"),
        (msgspec.structs.replace(made_record(3), layers=9), "the counters and seconds of its 9 layers"),
        (msgspec.structs.replace(made_record(3), per_layer=[{}] * 6), "the counters and seconds of its 5 layers"),
        (msgspec.structs.replace(made_record(3), counters={}), "does not have all counters"),
        (changed(made_record(3), 1, bytes_to=[1]), "worker 1 of the record"),
        (changed(made_record(3), 0, bytes_to=[1]), "traffic or waits of another number of ranks than 3"),
        (changed(made_record(3), 2, seconds={}), "worker 2 of the record"),
        (changed(made_record(3), 2, rank=0), "worker 2 of the record"),
        (changed(made_record(3), 0, waits_for=[]), "worker 1 of the record"),
        (changed(made_record(3), 1, ended=0.0), "worker 1 of the record ends before it starts"),
    ],
)
def test_a_record_that_is_not_whole_is_one_line(record: Record, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check(record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "record",
    [
        made_record(2, wall_seconds=-1.0),
        made_record(2, wall_seconds=float("nan")),
        made_record(2, samples=10**400),
        changed(made_record(2), 1, started=1e300),
        changed(made_record(2), 1, waits_for=[0.0, -0.5]),
        changed(made_record(2), 1, bytes_to=[-1, 0]),
        changed(made_record(2), 1, peak_memory_bytes=-5),
        made_record(2, settings={"memory_mb": 10**30}),
        made_record(2, settings={"billed_start_seconds": -1.0}),
    ],
)
def test_numbers_that_no_run_can_have_are_one_line(record: Record) -> None:
    with pytest.raises(InputError, match="seconds or counters that no run can have"):
        check(record)


RECORD = json.loads(made_record(2, 2, True).to_json())
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
)


def replaced(tree: Any, data: st.DataObject) -> Any:
    """A copy of `tree` with something else at some place of it, or without it."""
    if not isinstance(tree, list | dict) or not tree or data.draw(st.integers(0, 5)) == 0:
        return data.draw(_VALUES)
    places = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    place = data.draw(st.sampled_from(places))
    copy = tree.copy()
    if data.draw(st.integers(0, 5)) == 0:
        del copy[place]
    else:
        copy[place] = replaced(tree[place], data)
    return copy


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_is_changed_in_a_record_it_is_a_page_or_one_line(data: st.DataObject) -> None:
    try:
        record = msgspec.convert(replaced(RECORD, data), Record)
    except msgspec.ValidationError:
        return
    try:
        page = report(record)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert page.startswith("<!doctype html>")
