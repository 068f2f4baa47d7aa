"""HTML and SVG as text, escaped where it is made."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

__all__ = ["Attribute", "Markup", "as_table", "element", "joined", "scrolled", "table"]

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
