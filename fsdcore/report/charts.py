"""Charts as SVG that is sharp at any size and takes its colours from the page, so that it prints and turns dark."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from fsdcore.report.facts import DRAWN

Attribute: TypeAlias = str | int | float | bool | None
_VOID = {"col", "input", "line", "meta", "path", "rect"}


class Markup(str):
    """Text that is HTML already; any other text is escaped."""

    __slots__ = ()


def element(name: str, /, *content: str | None, **attributes: Attribute) -> Markup:
    """One element. In names of attributes ``_`` is ``-``, at the end nothing; None and False are left out."""
    opened = f"<{name}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    if name in _VOID:
        return Markup(opened if name in ("col", "input", "meta") else f"{opened[:-1]}/>")
    return Markup(f"{opened}{joined(content)}</{name}>")


def joined(content: Iterable[str | None]) -> Markup:
    """All of it, one after the other."""
    return Markup("".join(_escaped(part) for part in content if part is not None))


def _escaped(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(text)


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    shown = f"{value:.6g}" if isinstance(value, float) else html.escape(str(value))
    return f' {name}="{shown}"'


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    text: Collection[int] = (),
    sortable: bool = False,
) -> Markup:
    """A table whose first column names its rows. Numbers are set to the right, columns in `text` to the left."""
    marks = ["t" if number in text else None for number in range(len(headings))]
    head = [element("th", name, scope="col", class_=mark) for name, mark in zip(headings, marks, strict=True)]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row", class_=marks[0]),
            *(element("td", cell, class_=mark) for cell, mark in zip(row[1:], marks[1:], strict=True)),
        )
        for row in rows
    ]
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        data_sortable=sortable,
    )
    return scrolled(caption, made)


def scrolled(label: str, content: str) -> Markup:
    """What may be wider than the page: it scrolls by itself, from a keyboard too."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def as_table(what: str, made: Markup, id_: str | None = None) -> Markup:
    """The table that says the same as a chart, folded away."""
    return element("details", element("summary", f"{what} as a table"), made, id=id_)


LEVELS = 9


def legend(names: Iterable[str] = DRAWN) -> Markup:
    """What the colours of activities mean."""
    return element(
        "ul",
        *(element("li", element("span", class_=f"swatch a-{name}", aria_hidden="true"), name) for name in names),
        class_="legend",
    )


def share_bar(spent: Mapping[str, float], label: str) -> Markup:
    """Activities one after the other, together as wide as the page."""
    whole = sum(spent.values()) or 1.0
    return _svg(joined(_row(spent, 0.0, whole)), 1000, 10, label, "share")


def life_bar(spent: Mapping[str, float], start: float, whole: float) -> Markup:
    """One worker: from `start`, its activities' totals one after the other, on a line `whole` seconds long."""
    return element(
        "svg",
        *_row(spent, start, whole or 1.0),
        viewBox="0 0 1000 10",
        preserveAspectRatio="none",
        class_="life",
        aria_hidden="true",
    )


def _row(spent: Mapping[str, float], start: float, whole: float) -> Iterable[Markup]:
    at = 1000 * start / whole
    for name, seconds in spent.items():
        width = 1000 * seconds / whole
        if width >= 0.05:
            yield element("rect", class_=f"a-{name}", x=at, width=width, height=10)
        at += width


def stacks(columns: Sequence[Mapping[str, float]], label: str) -> tuple[Markup, float]:
    """One stack of activities for each column; with the largest sum, which is the height of the chart."""
    highest = max((sum(column.values()) for column in columns), default=0.0)
    paths = []
    base = [0.0] * len(columns)
    for name in columns[0] if columns else ():
        steps = []
        for number, column in enumerate(columns):
            height = 100 * column[name] / (highest or 1.0)
            if height > 0:
                steps.append(f"M{number} {100 - base[number]:.2f}h1v{-height:.2f}h-1z")
            base[number] += height
        paths.append(element("path", class_=f"a-{name}", d="".join(steps)))
    return _svg(joined([*paths, _cursor(100)]), len(columns), 100, label, "stacks"), highest


def curve(values: Sequence[float | None], label: str) -> tuple[Markup, float]:
    """A step for each value; with the largest. None leaves a gap."""
    highest = max((value for value in values if value is not None), default=0.0)
    steps = [
        f"M{number} 40v{-40 * value / highest:.2f}h1V40z"
        for number, value in enumerate(values)
        if value is not None and highest > 0
    ]
    drawn = element("path", class_="curve", d="".join(steps))
    return _svg(joined([drawn, _cursor(40)]), len(values), 40, label, "curve-plot"), highest


def plot(title: str, made: tuple[Markup, float], highest: str) -> Markup:
    """A chart with its title and the value at its top."""
    head = element("p", title, " ", element("span", f"top of the scale: {highest}", class_="muted"), class_="plot-head")
    return element("div", head, made[0], class_="plot")


def heat_map(rows: Sequence[Sequence[float]], label: str) -> tuple[Markup, list[float]]:
    """A square for each number, darker for more; with the least number of each level above nothing."""
    most = max((value for row in rows for value in row), default=0.0)
    levels: list[list[str]] = [[] for _ in range(LEVELS + 1)]
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            levels[_level(value, most)].append(f"M{x} {y}h1v1h-1z")
    paths = [
        element("path", class_=f"h{number}", d="".join(steps))
        for number, steps in enumerate(levels)
        if steps and number
    ]
    size = len(rows)
    cursor = element("rect", class_="cursor", width=1, height=1, visibility="hidden")
    drawn = _svg(
        joined([element("rect", class_="h0", width=size, height=size), *paths, cursor]), size, size, label, "map"
    )
    return drawn, [most * number / LEVELS for number in range(LEVELS)]


def across(size: int, first: int = 0) -> Markup:
    """The numbers of columns, from `first`, below or above a chart of `size` columns."""
    texts = [
        element("text", str(first + at), x=f"{100 * (at + 0.5) / size:.6g}%", y="0.85em") for at in _ticks(size, first)
    ]
    return element("svg", *texts, class_="across", aria_hidden="true")


def down(size: int) -> Markup:
    """The numbers of lines, from 0, beside a chart of `size` lines."""
    texts = [
        element("text", str(at), x="100%", y=f"{100 * (at + 0.5) / size:.6g}%", dy="0.32em") for at in _ticks(size, 0)
    ]
    return element("svg", *texts, class_="down", aria_hidden="true")


def _ticks(size: int, first: int) -> list[int]:
    """At most about a dozen of `size` columns, on round numbers."""
    steps = (factor * 10**power for power in range(7) for factor in (1, 2, 5))
    step = next(step for step in steps if size <= 12 * step)
    return [at for at in range(size) if (first + at) % step == 0]


def _level(value: float, most: float) -> int:
    return 0 if value <= 0 else min(LEVELS, 1 + int(LEVELS * value / most))


def _cursor(height: int) -> Markup:
    return element("rect", class_="cursor", width=1, height=height, visibility="hidden")


def _svg(content: Markup, width: int, height: int, label: str, kind: str) -> Markup:
    return element(
        "svg",
        content,
        viewBox=f"0 0 {max(1, width)} {height}",
        preserveAspectRatio="none",
        class_=kind,
        role="img",
        aria_label=label,
    )
