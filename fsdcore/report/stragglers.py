"""Which rank delays the others, and why."""

from __future__ import annotations

import math
from statistics import median

from fsdcore.record.record import Record, WorkerRecord
from fsdcore.report.charts import Markup, element, life_bar, scrolled
from fsdcore.report.facts import Cause, awaited, cause, ends, last_rank, shown_ranks, worker_seconds
from fsdcore.text import bytes_, percent, seconds

# Ranks that have a line.
_MOST_SHOWN = 256
# What is waited for a rank, against the mean, from which on it is worth a word.
_STANDS_OUT = 1.5


def findings(record: Record) -> list[str]:
    """The rank that ended last, the one that is waited for most, how even the work is: a sentence each."""
    if record.workers == 1:
        return ["One worker: nobody waits for anybody."]
    return [_last(record), _waited(record), _balance(record)]


def _last(record: Record) -> str:
    times, rank = ends(record), last_rank(record)
    late = times[rank] - median(times)
    said = f"Rank {rank} ends last, {seconds(late)} after the median rank"
    return f"{said}: {_why(cause(record, rank))}."


def _waited(record: Record) -> str:
    waits = awaited(record)
    whole = math.fsum(waits)
    if whole == 0.0:
        waited = any(any(worker.seconds["wait"]) for worker in record.per_worker)
        return "The record does not say who was waited for." if waited else "No worker waited for another."
    rank = max(range(len(waits)), key=lambda one: waits[one])
    share = f"{seconds(waits[rank])} of {seconds(whole)}, {percent(waits[rank] / whole)}"
    if waits[rank] < _STANDS_OUT * whole / record.workers:
        return f"No rank is waited for much more than others: rank {rank} most ({share})."
    return f"Rank {rank} is waited for most ({share}): {_why(cause(record, rank))}."


def _why(found: Cause | None) -> str:
    if found is None:
        return "in no activity is it far above the median rank"
    return f"it {found.what} than the median rank, by {seconds(found.seconds)}"


def _balance(record: Record) -> str:
    work = [worker_seconds(worker)["multiply"] for worker in record.per_worker]
    mean = math.fsum(work) / len(work)
    if mean == 0.0:
        return "No time was measured for computing."
    return f"The rank that computes most takes {max(work) / mean:.2f} times the mean of all ranks."


def stragglers(record: Record) -> Markup:
    """The section: findings, and a line for each rank."""
    return element(
        "section",
        element("h2", "Stragglers", id="stragglers-title"),
        element("ul", *(element("li", said) for said in findings(record))),
        *([] if record.workers == 1 else [_lives(record)]),
        id="stragglers",
        aria_labelledby="stragglers-title",
    )


_HEADINGS = ("rank", "from start to end", "ended", "computed", "sent", "waited", "waited for it", "bytes", "process")
_FIELDS = (
    "From start to end: what the rank spent by activity, in the colours above. Sent: encoded and sent. "
    "Waited for it: what all others together waited for its rows."
)


def _lives(record: Record) -> Markup:
    times, waits = ends(record), awaited(record)
    shown = shown_ranks(record, _MOST_SHOWN)
    caption = "Ranks from start to end" if len(shown) == record.workers else f"{len(shown)} of {record.workers:,} ranks"
    head = [element("th", name, scope="col", class_="t" if name == _HEADINGS[1] else None) for name in _HEADINGS]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *(_life(record.per_worker[rank], times[rank], max(times), waits[rank]) for rank in shown)),
        class_="lives",
        data_sortable=True,
    )
    return element("div", scrolled(caption, made), element("p", _FIELDS, class_="muted"))


def _life(worker: WorkerRecord, end: float, whole: float, waited_for: float) -> Markup:
    spent = worker_seconds(worker)
    first = max(0.0, end - math.fsum(spent.values()))
    cells = (end, spent["multiply"], spent["encode"] + spent["send"], spent["wait"], waited_for)
    return element(
        "tr",
        element("th", str(worker.rank), scope="row"),
        element("td", life_bar(spent, first, whole), class_="t"),
        *(element("td", f"{cell:.3f}", data_v=cell) for cell in cells),
        element("td", bytes_(sum(worker.counters["bytes_sent"])), data_v=sum(worker.counters["bytes_sent"])),
        element("td", bytes_(worker.peak_memory_bytes), data_v=worker.peak_memory_bytes),
    )
