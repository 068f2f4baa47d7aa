"""What each layer took and sent."""

from __future__ import annotations

import math

from fsdcore.record.record import Record
from fsdcore.report.charts import across, curve, legend, plot, stacks
from fsdcore.report.facts import DRAWN, OTHER, density
from fsdcore.report.markup import Markup, as_table, element, table
from fsdcore.text import bytes_, count, exact, seconds

__all__ = ["layers"]

_TIMED = tuple(name for name in DRAWN if name != OTHER)


def layers(record: Record) -> Markup:
    """The section: seconds by activity, bytes, rows and density along the layers; a slider reads them."""
    return element(
        "section",
        element("h2", "Layers", id="layers-title"),
        element("p", _words(record)),
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


def _words(record: Record) -> str:
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
