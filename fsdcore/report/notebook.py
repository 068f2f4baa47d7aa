"""Runs, forecasts, bills and advice as a notebook shows them: small cards with a style of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from fsdcore.client.session import Result
from fsdcore.estimate import Forecast
from fsdcore.estimate.advice import Advice
from fsdcore.estimate.bill import Bill
from fsdcore.record.record import Record
from fsdcore.report.answer import sentence, tiles
from fsdcore.report.charts import Markup, element, joined, legend, share_bar
from fsdcore.report.facts import activity_seconds
from fsdcore.text import bytes_, count, dollars, percent, quantity, seconds

Shown: TypeAlias = Record | Result | Bill | Forecast | Advice

# Colours that can be distinguished on light and dark pages; text has the colour of the notebook.
_STYLE = """
.fsd-card{max-width:56rem;font-variant-numeric:tabular-nums;line-height:1.45}
.fsd-card p{margin:.3em 0}
.fsd-card table{font-size:inherit;border-collapse:collapse;margin:.4em 0}
.fsd-card th,.fsd-card td{padding:.15em .8em .15em 0;text-align:right;font-weight:400;background:none}
.fsd-card th:first-child{text-align:left}
.fsd-card thead th{border-bottom:1px solid currentColor}
.fsd-card .share{display:block;width:100%;height:1.2em}
.fsd-card ul{display:flex;flex-wrap:wrap;gap:0 1em;margin:.3em 0;padding:0;list-style:none;font-size:.9em}
.fsd-card .swatch{display:inline-block;width:.8em;height:.8em;margin-right:.4em}
.fsd-card .best th,.fsd-card .best td{font-weight:600}
.fsd-card .a-load{fill:#7d8894;background:#7d8894}
.fsd-card .a-multiply{fill:#2f7fd6;background:#2f7fd6}
.fsd-card .a-encode{fill:#a9560f;background:#a9560f}
.fsd-card .a-send{fill:#d8326f;background:#d8326f}
.fsd-card .a-wait{fill:#b59468;background:#b59468}
.fsd-card .a-decode{fill:#e08f23;background:#e08f23}
.fsd-card .a-other{fill:#8885;background:#8885}
"""


def _card(*content: str) -> str:
    return str(element("div", element("style", Markup(_STYLE)), *content, class_="fsd-card"))


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], best: int | None = None) -> Markup:
    head = element("thead", element("tr", *(element("th", name, scope="col") for name in headings)))
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell) for cell in row[1:]),
            class_="best" if number == best else None,
        )
        for number, row in enumerate(rows)
    ]
    return element("table", head, element("tbody", *body))


def card(shown: Shown) -> str:
    """What a notebook shows, as HTML."""
    match shown:
        case Record():
            return _record_card(shown)
        case Result():
            return _result_card(shown)
        case Bill():
            return _bill_card(shown)
        case Forecast():
            return _forecast_card(shown)
        case Advice():
            return _advice_card(shown)


def _line(head: str, text: str) -> Markup:
    return element("p", element("strong", head), " ", text)


def _record(record: Record) -> Markup:
    spent = activity_seconds(record)
    numbers = ", ".join(f"{name} {shown}" for name, shown in tiles(record))
    return joined(
        [
            _line(f"Run {record.run_id}", f"{record.channel} on {record.backend}, {count(record.layers)} layers"),
            element("p", sentence(record)),
            share_bar(spent, sentence(record)),
            legend(),
            element("p", numbers),
        ]
    )


def _record_card(record: Record) -> str:
    """The answer, its bar, and the run in a few numbers."""
    return _card(_record(record))


def _result_card(result: Result) -> str:
    """What came out, and the run."""
    rows, columns = result.outputs.shape
    found = (
        f"{count(rows)} samples of {count(columns)} neurons; {count(result.categories().size)} have a nonzero output"
    )
    return _card(_line("Outputs", found), _record(result.record))


def _bill(bill: Bill) -> Markup:
    rows = [(line.item, dollars(line.dollars), quantity(line.quantity)) for line in bill.lines]
    rows.append(("total", dollars(bill.total), ""))
    return joined(
        [
            _line("Bill", f"at the prices of {bill.prices}, {bill.date}, {bill.currency}"),
            _table(("item", "dollars", "quantity"), rows, best=len(rows) - 1),
            element("p", f"Not counted: {'; '.join(bill.not_counted) or 'nothing'}."),
        ]
    )


def _bill_card(bill: Bill) -> str:
    """All items, and what they leave out."""
    return _card(_bill(bill))


def _forecast_card(forecast: Forecast) -> str:
    """What to expect, whether it fits, and the bill."""
    needs = max(forecast.memory_bytes)
    verdict = "fits" if forecast.fits else "does not fit"
    whole = sum(forecast.phases.values()) or 1.0
    phases = ", ".join(f"{name} {percent(spent / whole)}" for name, spent in forecast.phases.items())
    numbers = [
        f"{seconds(forecast.wall_seconds)} of wall time, {dollars(forecast.dollars)}",
        f"{bytes_(needs)} of {bytes_(forecast.memory_limit_bytes)} in the largest worker: {verdict}",
        f"{count(forecast.counters['messages'])} messages, {bytes_(forecast.counters['bytes_sent'])}",
        f"of the workers' seconds: {phases}",
    ]
    head = f"{forecast.channel}, {forecast.workers} workers, model {forecast.model}"
    return _card(_line("Forecast", head), *(element("p", said) for said in numbers), _bill(forecast.bill))


def _advice_card(advice: Advice) -> str:
    """The recommendation, and what nothing beats in both seconds and dollars."""
    headings = ("variant", "workers", "groups", "memory", "batch", "seconds", "dollars")
    rows = [
        (
            each.channel,
            count(each.workers),
            count(each.replicas),
            f"{each.memory_limit_bytes >> 20:,} MiB",
            count(each.batch_size),
            f"{each.wall_seconds:.2f}",
            dollars(each.dollars),
        )
        for each in advice.front
    ]
    best = next((number for number, each in enumerate(advice.front) if each is advice.best), None)
    return _card(_line("Advice", str(advice)), _table(headings, rows, best))
