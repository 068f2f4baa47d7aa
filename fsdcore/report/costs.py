"""What the run cost, next to its forecast."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from fsdcore.estimate import Forecast
from fsdcore.estimate.bill import Bill
from fsdcore.record.record import Record
from fsdcore.report.charts import Markup, element, table
from fsdcore.report.facts import activity_seconds
from fsdcore.text import count, dollars, quantity, seconds

_COUNTED = ("messages", "publishes", "bytes_sent", "receives", "acknowledges", "puts", "gets", "lists", "invocations")


def costs(record: Record, billed: Bill | None, before: Forecast | None) -> Markup:
    """The section: the bill by line item, next to its forecast if there is one, and what neither of them includes."""
    return element(
        "section",
        element("h2", "Bill" if before is None else "Bill and forecast", id="bill-title"),
        *(_no_bill() if billed is None else _bill(billed, before)),
        *([] if before is None else _forecast(record, before, billed)),
        id="bill",
        aria_labelledby="bill-title",
    )


def _no_bill() -> list[Markup]:
    told = (
        "No prices were given. For the bill of this run, make the page with ",
        element("code", "--prices PROVIDER/REGION"),
        ".",
    )
    return [element("p", *told, class_="hint")]


def _bill(billed: Bill, before: Forecast | None) -> list[Markup]:
    forecast = ("forecast",) if before else ()
    headings = ("item", "dollars", *forecast, "share", "quantity", "price")
    at = f"At the prices of {billed.prices}, {billed.date}, {billed.currency}"
    return [
        table(at, headings, _lines(billed, before)),
        element("p", element("strong", "Not counted: "), "; ".join(billed.not_counted) or "nothing", "."),
    ]


def _lines(billed: Bill, before: Forecast | None) -> Iterator[tuple[str, ...]]:
    expected = {line.item: line.dollars for line in before.bill.lines} if before else {}
    whole = billed.total or 1.0
    for line in billed.lines:
        known = (dollars(expected[line.item]) if line.item in expected else "-",) if before else ()
        share = f"{100 * line.dollars / whole:.1f}\u00a0%"
        yield (line.item, dollars(line.dollars), *known, share, quantity(line.quantity), dollars(line.price))
    total = (dollars(before.dollars),) if before else ()
    yield ("total", dollars(billed.total), *total, "", "", "")


def _forecast(record: Record, before: Forecast, billed: Bill | None) -> list[Markup]:
    how = "every message computed" if before.exact else "from a sample of the input"
    caption = f"Forecast ({how}, model {before.model}) and what came"
    made = table(caption, ("", "forecast", "run", "forecast / run"), _expected(record, before))
    other = before.differences(record, billed)
    if not other:
        return [made]
    return [
        element("p", element("strong", "The forecast is of another run: "), "; ".join(other), ".", class_="hint"),
        made,
    ]


def _expected(record: Record, before: Forecast) -> Iterator[tuple[str, str, str, str]]:
    yield (
        "wall time",
        seconds(before.wall_seconds),
        *_ran(seconds(record.wall_seconds), before.wall_seconds, record.wall_seconds),
    )
    spent = activity_seconds(record)
    for name, expected in before.phases.items():
        if name in spent:
            yield (f"{name}, all workers", seconds(expected), *_ran(seconds(spent[name]), expected, spent[name]))
    for name in _COUNTED:
        if name in before.counters:
            expected, counted = before.counters[name], record.counters[name]
            yield (name.replace("_", " "), count(expected), *_ran(count(counted), expected, counted))


def _ran(shown: str, expected: float, ran: float) -> tuple[str, str]:
    return shown, f"{expected / ran:.2f}" if ran else "-"


_FACTS = ("run_id", "backend", "channel", "workers", "layers", "samples", "batches")
_MEANT = {
    "rows_sent": "activation rows to other ranks",
    "nonzeros_sent": "values in them that are not zero",
    "messages": "what one rank sends another for one layer of one batch",
    "frames": "pieces of messages that fit the channel",
    "publishes": "calls to the channel that carry frames",
    "bytes_sent": "bytes of frames",
    "blocks_sent": "started 64 KiB of publishes",
    "receives": "calls that ask for frames",
    "acknowledges": "calls that acknowledge them",
    "puts": "objects written",
    "gets": "reads of objects",
    "lists": "lists of objects",
    "invocations": "workers started",
}


def configuration(record: Record) -> Markup:
    """The section: settings and counters."""
    counters = [
        (name.replace("_", " "), count(number), _MEANT.get(name, "")) for name, number in record.counters.items()
    ]
    return element(
        "section",
        element("h2", "Configuration and counters", id="configuration-title"),
        table("How it was run", ("setting", "value"), _settings(record), text=(1,)),
        table("What was counted, workers and client", ("counter", "total", "meaning"), counters, text=(2,)),
        id="configuration",
        aria_labelledby="configuration-title",
    )


def _settings(record: Record) -> Iterator[tuple[str, str]]:
    for name in _FACTS:
        yield name.replace("_", " "), str(getattr(record, name))
    for name, value in record.settings.items():
        if name not in _FACTS:
            yield name.replace("_", " "), value if isinstance(value, str) else msgspec.json.encode(value).decode()
