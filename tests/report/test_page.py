"""The page as text: self-contained, of bounded size, and harmless whatever the record says."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import msgspec
import pytest

from fsdcore.errors import InputError
from fsdcore.estimate.bill import bill, load_prices, usage_of
from fsdcore.report import report
from fsdcore.report.traffic import blocks
from tests.report.records import changed, made_record, made_worker


def data_of(page: str) -> Any:
    found = re.search(r'<script id="run-data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_nothing_in_it_is_elsewhere() -> None:
    page = report(made_record(4, traced=True))
    assert not re.search(r"https?:|//cdn|@import|url\(|\bsrc=|<link|<iframe|\beval\(|innerHTML|localStorage", page)
    assert re.findall(r'href="([^#"][^"]*)"', page) == []


def test_the_policy_names_the_very_program_and_style() -> None:
    page = report(made_record(2))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src &#x27;none&#x27;")
    assert "unsafe" not in policy[1]
    for pattern in (r"<style>(.*?)</style>", r"<script>(.*?)</script>"):
        parts = re.findall(pattern, page, re.DOTALL)
        assert len(parts) == 1
        digest = base64.b64encode(hashlib.sha256(parts[0].encode()).digest()).decode()
        assert f"sha256-{digest}" in policy[1].replace("&#x27;", "'")


def test_no_text_of_a_record_leaves_its_place() -> None:
    bad = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
    record = made_record(2, run_id=bad, backend=bad, channel=bad, settings={bad: bad})
    page = report(record)
    assert page.count("<script") == 2
    assert "<img" not in page
    # Run, backend, channel, key and value; the title and the heading have the run, the channel once more each.
    assert page.count("&lt;img src=x onerror=&quot;alert(2)&quot;&gt;") >= 6


def test_every_link_leads_to_a_part_of_the_page() -> None:
    page = report(made_record(2))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r'(?:labelledby|describedby)="([^"]+)"', page)) <= set(ids)


@pytest.mark.parametrize("traced", [True, False])
def test_62_workers_by_120_layers_stay_below_5_megabytes(traced: bool) -> None:
    record = made_record(62, 120, traced)
    page = report(record)
    assert len(page.encode()) < 5_000_000
    data = data_of(page)
    assert data["traffic"] == [worker.bytes_to for worker in record.per_worker]
    assert len(data["ranks"]) == 62


def test_a_trace_of_any_length_stays_below_5_megabytes() -> None:
    record = made_record(4, 2)
    long = [msgspec.structs.replace(span, layer=1) for span in made_record(1, 12_000, True).per_worker[0].spans]
    workers = [msgspec.structs.replace(worker, spans=long) for worker in record.per_worker]
    page = report(msgspec.structs.replace(record, per_worker=workers))
    assert len(page.encode()) < 5_000_000
    assert data_of(page)["merged"] > 0


def test_many_ranks_share_squares_and_only_the_largest_pairs_are_listed() -> None:
    page = report(made_record(150, 2))
    data = data_of(page)
    assert (data["side"], len(data["traffic"])) == (2, 75)
    assert "The 200 pairs that sent most" in page
    assert page.count("<table") == report(made_record(5, 2)).count("<table")


def test_what_a_record_does_not_say_is_told() -> None:
    record = made_record(3)
    nothing: list[int]
    for nothing in ([0, 0, 0], []):
        for rank in range(3):
            record = changed(record, rank, bytes_to=nothing, waits_for=nothing)
        page = report(record)
        assert "The record does not say who sent to whom." in page
        assert "The record does not say who was waited for." in page
    silent = msgspec.structs.replace(record, counters={**record.counters, "bytes_sent": 0})
    assert "No worker sent anything." in report(silent)
    assert "there is nobody to send to" in report(made_record(1))


def test_of_very_many_ranks_those_that_matter_are_drawn() -> None:
    one = msgspec.structs.replace(made_worker(0, 1, 2, False, 0), bytes_to=[], waits_for=[])
    workers = [msgspec.structs.replace(one, rank=rank) for rank in range(3000)]
    workers[1234] = msgspec.structs.replace(one, rank=1234, ended=one.ended + 5)
    page = report(msgspec.structs.replace(made_record(1, 2), workers=3000, per_worker=workers))
    drawn = [rank["rank"] for rank in data_of(page)["ranks"]]
    assert 500 < len(drawn) <= 1024
    assert 1234 in drawn
    assert "Rank 1234 ends last" in page
    assert "Of so many ranks, 1,024 at most are drawn" in page
    assert len(page.encode()) < 5_000_000


def test_blocks_keep_the_sum() -> None:
    assert blocks([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 2) == [[12, 9], [15, 9]]


def test_bill_and_what_it_does_not_count() -> None:
    record = made_record(3)
    prices = load_prices("aws/us-east-1")
    billed = bill(usage_of(record, 2 << 30, 1.0), prices)
    page = report(record, billed)
    for line in billed.lines:
        assert line.item in page
    for left_out in billed.not_counted:
        assert left_out in page
    assert "No prices were given" in report(record)


def test_a_record_that_is_not_whole_has_no_page() -> None:
    with pytest.raises(InputError, match="the record has 3 workers of 4"):
        report(msgspec.structs.replace(made_record(3), workers=4))
