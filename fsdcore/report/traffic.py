"""Who sent how much to whom."""

from __future__ import annotations

from collections.abc import Sequence

from fsdcore.record.record import Record
from fsdcore.report.charts import across, down, heat_map
from fsdcore.report.facts import MOST_RANKS, received, shown_ranks
from fsdcore.report.markup import Markup, as_table, element, table
from fsdcore.text import bytes_, count, percent

__all__ = ["blocks", "squares", "traffic"]

# With more ranks, neighbours share a square of the map.
_MOST_SQUARES = 128
# With more ranks, only the largest pairs are listed.
_MOST_LISTED = 64
_LARGEST = 200


def blocks(matrix: Sequence[Sequence[int]], size: int) -> list[list[int]]:
    """The sums over squares of `size` by `size` ranks."""
    starts = range(0, len(matrix), size)
    return [[sum(sum(row[x : x + size]) for row in matrix[y : y + size]) for x in starts] for y in starts]


def squares(record: Record) -> tuple[list[list[int]], int]:
    """The bytes that a square of the map stands for, by line and column; and how many ranks a side of it has."""
    size = -(-record.workers // _MOST_SQUARES)
    return blocks([worker.bytes_to for worker in record.per_worker], size), size


def traffic(record: Record) -> Markup:
    """The section: a map of bytes from rank to rank, and the numbers as a table."""
    return element(
        "section",
        element("h2", "Traffic from rank to rank", id="traffic-title"),
        *(_drawn(record) if any(any(worker.bytes_to) for worker in record.per_worker) else [_none(record)]),
        id="traffic",
        aria_labelledby="traffic-title",
    )


def _none(record: Record) -> Markup:
    if record.workers == 1:
        return element("p", "One worker: there is nobody to send to.")
    if not record.counters["bytes_sent"]:
        return element("p", "No worker sent anything.")
    return element("p", "The record does not say who sent to whom.")


def _drawn(record: Record) -> list[Markup]:
    matrix = [worker.bytes_to for worker in record.per_worker]
    label = f"Bytes from each of {record.workers} ranks to each other"
    shown, size = squares(record)
    drawn, levels = heat_map(shown, label)
    side = element(
        "div",
        element("p", "Point at a square to read it.", id="traffic-says", class_="says", aria_live="polite"),
        _scale(levels, "Bytes" if size == 1 else f"Bytes between {size} and {size} ranks"),
    )
    return [
        element("p", _words(record, matrix)),
        element("div", _map(drawn, label, record.workers), side, class_="traffic"),
        as_table("Bytes by rank", _totals(record, matrix)),
        as_table("Bytes by pair", _pairs(matrix)),
    ]


def _map(drawn: Markup, label: str, workers: int) -> Markup:
    frame = element(
        "div",
        drawn,
        id="traffic-map",
        class_="map-frame",
        tabindex=0,
        role="application",
        aria_roledescription="traffic matrix",
        aria_label=f"{label}; arrow keys go from pair to pair",
    )
    return element(
        "div",
        element("span", "to rank", class_="to muted", aria_hidden="true"),
        across(workers),
        element("span", "from rank", class_="from muted", aria_hidden="true"),
        down(workers),
        frame,
        class_="map-box",
    )


def _words(record: Record, matrix: Sequence[Sequence[int]]) -> str:
    whole = sum(map(sum, matrix))
    talking = sum(value > 0 for row in matrix for value in row)
    pairs = record.workers * (record.workers - 1)
    most, source, target = max(
        (value, source, target) for source, row in enumerate(matrix) for target, value in enumerate(row)
    )
    return (
        f"{bytes_(whole)} of rows in all, without the headers of frames; "
        f"{count(talking)} of {count(pairs)} pairs talk ({percent(talking / pairs)}). "
        f"The most goes from rank {source} to rank {target}: {bytes_(most)}, {percent(most / whole)} of all."
    )


def _scale(levels: Sequence[float], unit: str) -> Markup:
    steps = [
        element("li", element("span", class_=f"swatch h{number}", aria_hidden="true"), text)
        for number, text in enumerate(["nothing", "above nothing", *(f"from {bytes_(least)}" for least in levels[1:])])
    ]
    return element("div", element("p", unit, class_="muted"), element("ul", *steps, class_="legend scale"))


def _totals(record: Record, matrix: Sequence[Sequence[int]]) -> Markup:
    came = received(record)
    rows = []
    for rank in shown_ranks(record, MOST_RANKS):
        worker = record.per_worker[rank]
        rows.append(
            (
                str(rank),
                count(sum(matrix[rank])),
                count(came[rank]),
                count(sum(value > 0 for value in matrix[rank])),
                count(sum(worker.counters["messages"])),
                count(sum(worker.counters["publishes"])),
            )
        )
    headings = ("rank", "bytes sent", "bytes to it", "ranks it sends to", "messages", "publishes")
    return table("Bytes by rank", headings, rows, sortable=True)


def _pairs(matrix: Sequence[Sequence[int]]) -> Markup:
    if len(matrix) <= _MOST_LISTED:
        headings = ("from \\ to", *map(str, range(len(matrix))))
        rows = [(str(rank), *map(count, row)) for rank, row in enumerate(matrix)]
        return table("Bytes from the rank of a line to the rank of a column", headings, rows)
    every = ((value, source, target) for source, row in enumerate(matrix) for target, value in enumerate(row))
    largest = sorted(every, reverse=True)[:_LARGEST]
    listed = [(str(source), str(target), count(value)) for value, source, target in largest]
    return table(f"The {len(listed)} pairs that sent most", ("from rank", "to rank", "bytes"), listed)
