"""What a notebook shows of results, records, forecasts, bills and advice."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import textwrap
from html.parser import HTMLParser

import numpy as np
import pytest

import fsdcore
from fsdcore.client.session import Result
from fsdcore.estimate import Forecast
from fsdcore.estimate.advice import Advice, Goal
from fsdcore.estimate.bill import Bill, bill, load_prices, usage_of
from fsdcore.record.record import Record
from fsdcore.report.answer import sentence
from fsdcore.report.notebook import card
from tests.report.records import made_record


def text_of(html: str) -> str:
    """The card's text, if all its elements are closed and its style is for it alone."""
    open_: list[str] = []
    text: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("rect", "path"):
                open_.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_.pop() == tag

        def handle_data(self, data: str) -> None:
            if "style" in open_:
                assert all(line.startswith(".fsd-card") for line in data.split("\n") if line)
            else:
                text.append(data)

    Reader().feed(html)
    assert open_ == []
    assert not re.search(r"<script|https?:|\bid=", html)
    assert len(html) < 8_000
    return " ".join(text)


def made_forecast(seconds: float = 2.0) -> Forecast:
    record = made_record(3)
    return Forecast(
        prices="aws/us-east-1",
        model="aws",
        channel="queue",
        workers=3,
        replicas=1,
        branching=4,
        batch_size=500,
        samples=1000,
        batches=2,
        exact=False,
        counters=dict(record.counters),
        memory_bytes=(5 << 20, 7 << 20, 6 << 20),
        memory_limit_bytes=2 << 30,
        seconds_limit=900.0,
        phases={"multiply": 1.0, "wait": 3.0},
        worker_seconds=6.0,
        wall_seconds=seconds,
        bill=bill(usage_of(record, 2 << 30, 1.0), load_prices("aws/us-east-1")),
    )


def test_a_record_answers_first() -> None:
    record = made_record(3, run_id="<b>run</b>")
    shown = text_of(card(record))
    assert "Run <b>run</b>" in shown
    assert sentence(record) in shown
    assert f"{record.counters['messages']:,}" in shown


def test_a_result_says_what_came_out() -> None:
    outputs = np.array([[0, 1], [0, 0], [2, 3]], np.float32)
    shown = text_of(card(Result(outputs, made_record(1))))
    assert "3 samples of 2 neurons; 2 have a nonzero output" in shown


def test_a_bill_has_every_item_and_what_it_leaves_out() -> None:
    billed = made_forecast().bill
    shown = text_of(card(billed))
    for line in billed.lines:
        assert line.item in shown
    assert all(left_out in shown for left_out in billed.not_counted)
    assert "total" in shown


@pytest.mark.parametrize(("seconds", "verdict"), [(2.0, ": fits"), (901.0, ": does not fit")])
def test_a_forecast_says_whether_it_fits(seconds: float, verdict: str) -> None:
    shown = text_of(card(made_forecast(seconds)))
    assert verdict in shown
    assert "multiply 25\u00a0%, wait 75\u00a0%" in shown


def test_advice_shows_its_front_and_marks_the_best() -> None:
    front = (made_forecast(1.0), made_forecast(2.0))
    advice = Advice(Goal(deadline=3.0), front, front[1], {"queue": front[1]}, 2)
    shown = card(advice)
    assert str(advice) in text_of(shown)
    assert shown.count('<tr class="best">') == 1
    assert re.search(r'<tr class="best">.*?2\.00', shown)


def test_what_ipython_is_told_of_are_types_by_the_names_of_their_modules() -> None:
    """IPython looks a type up by both; one that has moved would lose its card in silence."""
    told = {getattr(importlib.import_module(home), name) for home, name in fsdcore._SHOWN.items()}
    assert told == {Advice, Bill, Forecast, Record, Result}
    assert {kind.__module__: kind.__name__ for kind in told} == fsdcore._SHOWN


def test_ipython_shows_cards_and_imports_nothing_before() -> None:
    """As in a notebook, whose shell is there before any import."""
    code = """
        import sys
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        html = shell.display_formatter.formatters["text/html"]
        import fsdcore
        assert "fsdcore.report.notebook" not in sys.modules
        from tests.report.records import made_record
        shown = html(made_record(3))
        assert shown.startswith('<div class="fsd-card">'), shown
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=os.environ)
