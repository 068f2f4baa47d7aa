"""The whole page, in one file that makes no network request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources

import msgspec

from fsdcore.estimate import Forecast
from fsdcore.estimate.bill import Bill
from fsdcore.record.file import check
from fsdcore.record.record import Record
from fsdcore.report.answer import answer, summary
from fsdcore.report.charts import Markup, element
from fsdcore.report.costs import configuration, costs
from fsdcore.report.stragglers import stragglers
from fsdcore.report.timelines import aligned, timeline, timeline_data
from fsdcore.report.traffic import layers, squares, traffic
from fsdcore.text import count

_SECTIONS = (
    ("answer", "Answer"),
    ("summary", "Summary"),
    ("timeline", "Timeline"),
    ("traffic", "Traffic"),
    ("layers", "Layers"),
    ("stragglers", "Stragglers"),
    ("bill", "Bill"),
    ("configuration", "Configuration"),
)


def report(record: Record, billed: Bill | None = None, before: Forecast | None = None) -> str:
    """The page of a run as HTML: of its `record`, its bill and its forecast where they are given.

    One document without a single request: style, program and data are in it. All text of the record is escaped, and
    the page's policy lets no other program run. `InputError` if the record is not whole.
    """
    check(record)
    record, later = aligned(record)
    style, program = _file("page.css"), _file("page.js")
    body = (
        element("a", "Skip to the report", href="#main", class_="skip"),
        _header(record),
        element("main", *_sections(record, later, billed, before), id="main"),
        element("footer", element("p", _FOOTER, class_="muted")),
        element("script", _data(record), id="run-data", type="application/json"),
        element("script", Markup(program)),
    )
    page = element("html", _head(record, style, program), element("body", *body), lang="en")
    return f"<!doctype html>\n{page}\n"


_FOOTER = (
    "Computing is multiply; communicating is encode, send, wait and decode; loading is reading the plan and the inputs "
    "and writing the outputs. Other is what a worker lived beyond them. Clocks of different machines may differ."
)


def _sections(record: Record, later: Mapping[int, int], billed: Bill | None, before: Forecast | None) -> list[Markup]:
    return [
        answer(record),
        summary(record, billed),
        timeline(record, later),
        traffic(record),
        layers(record),
        stragglers(record),
        costs(record, billed, before),
        configuration(record),
    ]


def _header(record: Record) -> Markup:
    links = [element("li", element("a", name, href=f"#{target}")) for target, name in _SECTIONS]
    workers = "1 worker" if record.workers == 1 else f"{count(record.workers)} workers"
    said = f"{record.channel} on {record.backend} \u00b7 {workers} \u00b7 {count(record.layers)} layers \u00b7 " + (
        f"{count(record.samples)} samples in {count(record.batches)} {'batch' if record.batches == 1 else 'batches'}"
    )
    themes = [element("option", name.capitalize(), value=name) for name in ("system", "light", "dark")]
    theme = element("label", "Theme ", element("select", *themes, id="theme"), class_="theme")
    return element(
        "header",
        element("div", element("h1", "Run ", element("span", record.run_id, class_="id")), theme, class_="title"),
        element("p", said, class_="muted"),
        element("nav", element("ul", *links), aria_label="Sections"),
    )


def _head(record: Record, style: str, program: str) -> Markup:
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(program)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"Run {record.run_id}: {record.channel}, {record.workers} workers"),
        element("style", Markup(style)),
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _data(record: Record) -> Markup:
    bytes_, side = squares(record)
    data = {**timeline_data(record), "workers": record.workers, "traffic": bytes_, "side": side}
    # A script element ends at the first "</", wherever it stands.
    return Markup(msgspec.json.encode(data).decode().replace("<", "\\u003c"))
