"""When each rank did what."""

from __future__ import annotations

from collections.abc import Mapping

from fsdcore.record.record import Record
from fsdcore.report.charts import legend
from fsdcore.report.facts import DRAWN, MOST_RANKS, ends, shown_ranks, worker_seconds
from fsdcore.report.markup import Markup, as_table, element, joined, table
from fsdcore.report.placing import shown_later
from fsdcore.text import count, exact

__all__ = ["timeline"]

_KEYS = (
    "Left and right go from span to span, up and down from rank to rank; plus and minus zoom, 0 shows all, "
    "Page Up and Page Down move. Drag to move, Ctrl and the wheel zoom."
)
_FEWER = f"Of so many ranks, {MOST_RANKS:,} at most are drawn and listed: those that ended last or are waited for most."
_HINT = "Point at a span to read it."
_BUTTONS = (("in", "Zoom in"), ("out", "Zoom out"), ("left", "Earlier"), ("right", "Later"), ("all", "Show all"))


def timeline(record: Record, later: Mapping[int, int]) -> Markup:
    """The section: a drawing that the page's program makes, and seconds by rank and activity as a table.

    `later`: by how many microseconds which ranks are shown later than their clocks say.
    """
    return element(
        "section",
        element("h2", "Timeline by rank", id="timeline-title"),
        *([] if record.workers <= MOST_RANKS else [element("p", _FEWER, class_="hint")]),
        _traced_note(later) if record.traced else _laid_note(),
        legend(),
        _controls(),
        element(
            "canvas",
            id="timeline-canvas",
            tabindex=0,
            role="application",
            aria_roledescription="timeline",
            aria_label=f"Timeline of {record.workers} ranks",
            aria_describedby="timeline-keys",
        ),
        element("noscript", element("p", "The drawing needs JavaScript; the table below says the same.")),
        element("p", _HINT, id="timeline-says", class_="says", aria_live="polite"),
        element("p", _KEYS, id="timeline-keys", class_="muted keys"),
        as_table("Seconds by rank", _table(record)),
        id="timeline",
        aria_labelledby="timeline-title",
    )


def _traced_note(later: Mapping[int, int]) -> Markup:
    said = "When each rank did what, by its own clock. Short pieces of one activity in one layer are drawn together."
    if later:
        said = f"{said} {shown_later(later).capitalize()}."
    return element("p", said, class_="muted", id="timeline-note")


def _laid_note() -> Markup:
    return element(
        "p",
        element("strong", "This run was not traced. "),
        "Each rank begins where it started; its seconds are laid end to end, layer after layer, not where they were. "
        "For the true timeline run again with ",
        element("code", "fsd run --trace"),
        ".",
        class_="hint",
        id="timeline-note",
    )


def _controls() -> Markup:
    buttons = [element("button", name, type="button", data_do=what) for what, name in _BUTTONS]
    return element("div", joined(buttons), class_="controls", role="group", aria_label="Timeline")


def _table(record: Record) -> Markup:
    first = min(worker.started for worker in record.per_worker)
    rows, ended = [], ends(record)
    for rank in shown_ranks(record, MOST_RANKS):
        worker = record.per_worker[rank]
        spent = worker_seconds(worker)
        times = (exact(worker.started - first), exact(ended[rank]))
        rows.append((str(worker.rank), *times, *(exact(spent[name]) for name in DRAWN), count(len(worker.spans))))
    headings = ("rank", "started", "ended", *DRAWN, "spans")
    return table("Seconds by rank", headings, rows, sortable=True)
