"""Who sent how much to whom."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fsdcore.record.record import Record
from fsdcore.report.charts import Markup, across, as_table, curve, down, element, heat_map, legend, plot, stacks, table
from fsdcore.report.facts import DRAWN, MOST_RANKS, OTHER, density, received, shown_ranks
from fsdcore.text import bytes_, count, exact, percent, seconds

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


_TIMED = tuple(name for name in DRAWN if name != OTHER)


def layers(record: Record) -> Markup:
    """The section: seconds by activity, bytes, rows and density along the layers; a slider reads them."""
    return element(
        "section",
        element("h2", "Layers", id="layers-title"),
        element("p", _words_of_layers(record)),
        legend(_TIMED),
        element("div", *_plots(record), *_axis(record), id="layer-plots"),
        element(
            "p",
            "Point at a chart or move the slider to read a layer.",
            id="layer-says",
            class_="says",
            aria_live="polite",
        ),
        as_table("Layers", _table(record), id_="layer-table"),
        id="layers",
        aria_labelledby="layers-title",
    )


def _spent(record: Record, layer: int) -> dict[str, float]:
    spent = record.per_layer[layer]["seconds"]
    return {name: spent[name] for name in _TIMED}


def _words_of_layers(record: Record) -> str:
    outside = _spent(record, 0)
    inside = [math.fsum(_spent(record, layer).values()) for layer in range(1, record.layers + 1)]
    most = max(range(len(inside)), key=lambda layer: inside[layer])
    return (
        f"Seconds are summed over workers. Layer {most + 1} took most, {seconds(inside[most])} of "
        f"{seconds(math.fsum(inside))}; {seconds(math.fsum(outside.values()))} belong to no layer: start and end."
    )


def _plots(record: Record) -> list[Markup]:
    numbers = range(1, record.layers + 1)
    time = stacks([_spent(record, layer) for layer in numbers], "Seconds of each layer by activity, all workers")
    drawn = [plot("Seconds by activity", time, seconds(time[1]))]
    if record.workers == 1:
        return drawn
    for title, counter, shown in (("Bytes sent", "bytes_sent", bytes_), ("Rows sent", "rows_sent", count)):
        made = curve([record.per_layer[layer]["counters"][counter] for layer in numbers], f"{title} for each layer")
        drawn.append(plot(title, made, shown(made[1])))
    dense = curve([density(record, layer) for layer in numbers], "Density of the rows sent for each layer")
    return [*drawn, plot("Density of the rows sent", dense, f"{100 * dense[1]:.3g}\u00a0%")]


def _axis(record: Record) -> list[Markup]:
    """The numbers of the layers, and a slider to go through them."""
    slider = element("input", type="range", id="layer-slider", min=1, max=record.layers, value=1, step=1)
    label = element("label", "Layer", slider, class_="slider muted")
    return [across(record.layers, first=1), label]


def _table(record: Record) -> Markup:
    headings = ("layer", *_TIMED, "bytes sent", "rows sent", "nonzeros sent", "density", "messages", "publishes")
    return table("By layer, all workers", headings, [_line(record, layer) for layer in range(record.layers + 1)])


def _line(record: Record, layer: int) -> tuple[str, ...]:
    spent, counters = record.per_layer[layer]["seconds"], record.per_layer[layer]["counters"]
    dense = density(record, layer)
    return (
        str(layer) if layer else "start and end",
        *(exact(spent[name]) for name in _TIMED),
        *(count(counters[name]) for name in ("bytes_sent", "rows_sent", "nonzeros_sent")),
        "-" if dense is None else f"{dense:.4f}",
        *(count(counters[name]) for name in ("messages", "publishes")),
    )
