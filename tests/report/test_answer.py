"""The first sentence of a page, and the run in a few numbers."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.report.answer import sentence, tiles
from fsdcore.report.facts import verdict
from fsdcore.text import percent
from tests.report.records import changed, made_record


@given(workers=st.integers(1, 5), seed=st.integers(0, 60))
def test_the_sentence_has_every_share_the_largest_first(workers: int, seed: int) -> None:
    record = made_record(workers, 3, seed=seed)
    said, found = sentence(record), verdict(record)
    outside = re.sub(r"\(.*?\)", "", said)
    shown = re.findall(r"(?:<\u00a0)?\d+\u00a0%", outside)
    assert shown == [percent(share) for share in sorted(found.shares.values(), reverse=True)]
    assert len(re.findall(r"%", said)) == 8
    assert outside.count(" went to ") == 1


@pytest.mark.parametrize(
    ("activity", "start"),
    [("multiply", "Computing: of"), ("wait", "Communicating: of"), ("load", "Loading: of"), (None, "Neither: of")],
)
def test_the_first_word_is_the_answer(activity: str | None, start: str) -> None:
    record = made_record(1)
    worker = record.per_worker[0]
    seconds = dict(worker.seconds)
    if activity is not None:
        seconds[activity] = [0.0, 9.0, 0.0, 0.0, 0.0, 0.0]
    assert sentence(changed(record, 0, seconds=seconds, ended=worker.ended + 9.0)).startswith(start)


def test_without_any_time_there_is_no_answer() -> None:
    record = made_record(1)
    nothing = {name: [0.0] * 6 for name in record.per_worker[0].seconds}
    still = changed(record, 0, seconds=nothing, ended=record.per_worker[0].started)
    assert sentence(still) == "Neither: no time was measured."


def test_tiles_have_the_numbers_of_the_record() -> None:
    record = made_record(3)
    shown = dict(tiles(record))
    assert shown["wall time"] == "3.25\u00a0s"
    assert shown["samples/s"] == "308"
    assert shown["messages"] == f"{record.counters['messages']:,}"
    assert shown["workers"] == "3"
    assert "dollars" not in shown
    assert "samples/s" not in dict(tiles(msgspec.structs.replace(record, wall_seconds=0.0)))
    assert "messages" not in dict(tiles(made_record(1)))
