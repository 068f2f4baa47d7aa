"""The first thing on the page: computing or communicating? Then the run in a few numbers."""

from __future__ import annotations

from fsdcore.estimate.bill import Bill
from fsdcore.record.record import Record
from fsdcore.report.charts import Markup, as_table, element, legend, share_bar, table
from fsdcore.report.facts import COMMUNICATING, OTHER, Verdict, activity_seconds, verdict
from fsdcore.text import bytes_, count, dollars, exact, percent, rate, seconds

_HEADS = {
    "computing": "Computing",
    "communicating": "Communicating",
    "loading": "Loading",
    OTHER: "Neither",
    "both": "Both, about equally",
    "nothing": "Neither",
}


def sentence(record: Record) -> str:
    """Computing or communicating, with the shares, in one sentence."""
    found = verdict(record)
    if found.word == "nothing":
        return "Neither: no time was measured."
    whose = "the worker's" if record.workers == 1 else f"the {count(record.workers)} workers'"
    return f"{_HEADS[found.word]}: of {whose} {seconds(found.seconds)}, {_shares(record, found)}."


def _shares(record: Record, found: Verdict) -> str:
    """What took most comes first."""
    spent = activity_seconds(record)
    parts = ", ".join(f"{name} {percent(spent[name] / found.seconds)}" for name in COMMUNICATING)
    words = {name: f"to {name}" for name in found.shares}
    words["communicating"] += f" ({parts})"
    words[OTHER] = "to what is not timed"
    ordered = sorted(found.shares, key=lambda name: -found.shares[name])
    said = [f"{percent(found.shares[name])} {words[name]}" for name in ordered]
    return f"{', '.join(said[:-1])} and {said[-1]}".replace(" to ", " went to ", 1)


def answer(record: Record) -> Markup:
    """The answer, in a sentence, as a bar and as a table."""
    spent = activity_seconds(record)
    head, _, rest = sentence(record).partition(":")
    whole = sum(spent.values()) or 1.0
    rows = [(name, exact(took), percent(took / whole)) for name, took in spent.items()]
    return element(
        "section",
        element("h2", "Computing or communicating?", id="answer-title"),
        element("p", element("strong", f"{head}:"), rest, class_="answer"),
        share_bar(spent, f"Shares of the workers' seconds. {sentence(record)}"),
        legend(),
        as_table(
            "Seconds by activity", table("Seconds of all workers by activity", ("activity", "seconds", "share"), rows)
        ),
        id="answer",
        aria_labelledby="answer-title",
    )


def tiles(record: Record, billed: Bill | None = None) -> list[tuple[str, str]]:
    """The run in a few numbers, each with its name."""
    counters = record.counters
    numbers = [("wall time", seconds(record.wall_seconds)), ("samples", count(record.samples))]
    if record.wall_seconds > 0:
        numbers.append(("samples/s", rate(record.samples / record.wall_seconds)))
    if billed is not None:
        numbers.append(("dollars", dollars(billed.total)))
    numbers.append(("worker" if record.workers == 1 else "workers", count(record.workers)))
    if record.workers > 1:
        numbers += [(name, count(counters[key])) for name, key in _SENT]
        numbers.append(("sent", bytes_(counters["bytes_sent"])))
    largest = max((worker.peak_memory_bytes for worker in record.per_worker), default=0)
    return [*numbers, ("largest process", bytes_(largest))]


_SENT = (("rows", "rows_sent"), ("messages", "messages"), ("publishes", "publishes"))


def summary(record: Record, billed: Bill | None) -> Markup:
    """The section of the run's numbers."""
    pairs = [element("div", element("dt", name), element("dd", shown)) for name, shown in tiles(record, billed)]
    return element(
        "section",
        element("h2", "Summary", id="summary-title"),
        element("dl", *pairs, class_="tiles"),
        id="summary",
        aria_labelledby="summary-title",
    )
