"""Text stays text, whatever it is."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from fsdcore.report.charts import Markup, element, table


class _Reader(HTMLParser):
    """The elements of a document, their attributes and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


# A parser of HTML reads every end of a line as one character, and no NUL.
texts = st.text().filter(lambda text: not set(text) & {"\r", "\0"})


@given(text=texts, value=texts)
def test_no_text_makes_an_element(text: str, value: str) -> None:
    read = _Reader(element("p", text, aria_label=value))
    assert read.names == ["p"]
    assert read.text == text
    assert read.attributes == [("aria-label", value)]


@given(cells=st.lists(texts, min_size=2, max_size=4))
def test_no_cell_makes_an_element(cells: list[str]) -> None:
    read = _Reader(table(cells[0], cells, [cells]))
    assert set(read.names) == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert read.text == cells[0] + 2 * "".join(cells)


def test_attributes() -> None:
    made = element("rect", class_="a b", x=0.1 + 0.2, tabindex=0, hidden=True, title=None, open=False, data_v=7)
    assert made == '<rect class="a b" x="0.3" tabindex="0" hidden data-v="7"/>'
    assert element("meta", name="viewport", charset="utf-8") == '<meta name="viewport" charset="utf-8">'


def test_markup_is_not_escaped_again() -> None:
    assert element("p", element("b", "<"), None, " & ") == "<p><b>&lt;</b> &amp; </p>"
    assert isinstance(element("p"), Markup)
