"""The page in a browser: quiet, alone, whole, readable in both themes, at any width, and without a mouse."""

from __future__ import annotations

import math
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from fsdcore.estimate.bill import bill, load_prices, usage_of
from fsdcore.record.record import ACTIVITIES, Record
from fsdcore.report import report
from fsdcore.report.facts import DRAWN, activity_seconds, density, received, worker_seconds
from fsdcore.report.timelines import aligned
from tests.report.conftest import Opened, OpenPage
from tests.report.records import made_record

RECORDS = {
    "serial": made_record(1),
    "traced": made_record(5, traced=True),
    "untraced": made_record(5),
    "large": made_record(62, 120, traced=True),
}


def settle(opened: Opened) -> None:
    """Wait until what was asked for is drawn."""
    opened.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def page_of(record: Record) -> str:
    """With its bill."""
    return report(record, bill(usage_of(record, 2 << 30, 1.0), load_prices("aws/us-east-1")))


def unfolded(opened: Opened) -> Opened:
    """The page with all its tables shown."""
    opened.page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    return opened


@pytest.mark.parametrize("name", RECORDS)
def test_it_opens_without_a_complaint_and_asks_for_nothing(name: str, open_page: OpenPage) -> None:
    opened = open_page(page_of(RECORDS[name]))
    opened.page.select_option("#theme", "dark")
    for part in ("#timeline-canvas", "#traffic-map svg", ".stacks"):
        if opened.page.query_selector(part):
            opened.page.hover(part)
    settle(opened)
    assert opened.complaints == []
    assert len(opened.requests) == 1
    assert opened.requests[0].startswith("file:")


def test_text_of_a_record_is_shown_and_never_run(open_page: OpenPage) -> None:
    bad = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"
    opened = open_page(report(made_record(3, run_id=bad, channel=bad, settings={bad: bad})))
    assert opened.page.inner_text(".id") == bad
    assert [bad, bad] in opened.table("How it was run")
    assert opened.page.evaluate("window.ran") is None
    assert (opened.complaints, len(opened.requests)) == ([], 1)


def test_a_program_that_got_in_would_not_run(open_page: OpenPage) -> None:
    page = report(made_record(2)).replace("</main>", "<script>window.ran = 1</script></main>")
    opened = open_page(page)
    assert opened.page.evaluate("window.ran") is None
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)


# Numbers -----------------------------------------------------------------------------------------------------


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.replace(",", "")) for cell in cells]


@pytest.mark.parametrize("name", ["traced", "large"])
def test_the_tables_have_the_numbers_of_the_record(name: str, open_page: OpenPage) -> None:
    record = RECORDS[name]
    opened = open_page(page_of(record))
    spent = activity_seconds(record)
    for activity, seconds, _ in opened.table("Seconds of all workers by activity")[1:]:
        assert float(seconds.replace(",", "")) == pytest.approx(spent[activity], abs=1e-6)
    assert [row[1:] for row in opened.table("Bytes from the rank of a line to the rank of a column")[1:]] == [
        [f"{size:,}" for size in worker.bytes_to] for worker in record.per_worker
    ]
    for rank, row in enumerate(opened.table("Bytes by rank")[1:]):
        assert numbers(row[1:3]) == [sum(record.per_worker[rank].bytes_to), received(record)[rank]]
    counted = {row[0]: row[1] for row in opened.table("What was counted, workers and client")[1:]}
    assert counted == {name.replace("_", " "): f"{count:,}" for name, count in record.counters.items()}
    check_ranks(record, opened)
    check_layers(record, opened)


def check_ranks(record: Record, opened: Opened) -> None:
    lines = opened.page.eval_on_selector_all(
        "#timeline tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    # The page shows all ranks in one time.
    record = aligned(record).record
    first = min(worker.started for worker in record.per_worker)
    for worker, line in zip(record.per_worker, lines, strict=True):
        spent = worker_seconds(worker)
        expected = [worker.rank, worker.started - first, worker.ended - first, *(spent[name] for name in DRAWN)]
        assert numbers(line) == pytest.approx([*expected, len(worker.spans)], abs=1e-6)


def check_layers(record: Record, opened: Opened) -> None:
    head, *lines = opened.table("By layer, all workers")
    assert [line[0] for line in lines] == ["start and end", *map(str, range(1, record.layers + 1))]
    for layer, line in enumerate(lines):
        shown = dict(zip(head, line, strict=True))
        for name in ACTIVITIES:
            assert float(shown[name]) == pytest.approx(record.per_layer[layer]["seconds"][name], abs=1e-6)
        for name in ("bytes_sent", "rows_sent", "nonzeros_sent", "messages", "publishes"):
            assert numbers([shown[name.replace("_", " ")]]) == [record.per_layer[layer]["counters"][name]]
        assert float(shown["density"]) == pytest.approx(density(record, layer) or math.nan, abs=1e-4)


def test_the_bill_of_the_page_is_the_bill(open_page: OpenPage) -> None:
    record = RECORDS["traced"]
    billed = bill(usage_of(record, 2 << 30, 1.0), load_prices("aws/us-east-1"))
    rows = open_page(page_of(record)).table(f"At the prices of {billed.prices}, {billed.date}, USD")[1:]
    assert [row[0] for row in rows] == [*(line.item for line in billed.lines), "total"]
    dollars = [float(row[1].strip("$").replace(",", "")) for row in rows]
    assert dollars == pytest.approx([*(line.dollars for line in billed.lines), billed.total], rel=1e-3)


# Looks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["serial", "traced", "untraced"])
def test_no_rule_of_accessibility_is_broken(name: str, theme: Any, open_page: OpenPage) -> None:
    """Contrast, names, roles, order of headings, and all else that axe-core looks at."""
    opened = unfolded(open_page(page_of(RECORDS[name]), color_scheme=theme))
    found = Axe().run(opened.page)
    assert found.violations_count == 0, found.generate_report()


# The page's background, and the lightest colour of the timeline's labels, 0 to 765.
PAINTED = """() => {
    const canvas = document.getElementById("timeline-canvas");
    const pixels = canvas.getContext("2d").getImageData(0, 0, 30 * devicePixelRatio, canvas.height).data;
    let most = 0;
    for (let i = 0; i < pixels.length; i += 4) {
        if (pixels[i + 3] === 255) most = Math.max(most, pixels[i] + pixels[i + 1] + pixels[i + 2]);
    }
    return `${getComputedStyle(document.body).backgroundColor} ${most}`;
}"""


def painted(opened: Opened) -> tuple[str, int]:
    """What `PAINTED` says now."""
    background, _, most = opened.page.evaluate(PAINTED).rpartition(" ")
    return background, int(most)


def test_the_theme_is_that_of_the_system_unless_one_is_chosen(open_page: OpenPage) -> None:
    white, black = "rgb(255, 255, 255)", "rgb(16, 21, 27)"
    opened = open_page(page_of(RECORDS["traced"]), color_scheme="dark")
    dark = painted(opened)
    opened.page.select_option("#theme", "light")
    light = painted(opened)
    assert (dark[0], light[0]) == (black, white)
    assert dark[1] > light[1]
    opened.page.select_option("#theme", "system")
    assert painted(opened) == dark
    opened.page.emulate_media(color_scheme="light")
    # The browser tells the page of the change when it draws next.
    opened.page.wait_for_function(f"wanted => ({PAINTED})() === wanted", arg=f"{light[0]} {light[1]}")


@pytest.mark.parametrize("width", [320, 360, 768, 1600])
@pytest.mark.parametrize("name", ["serial", "large"])
def test_nothing_is_wider_than_the_page(name: str, width: int, open_page: OpenPage) -> None:
    opened = unfolded(open_page(page_of(RECORDS[name]), width=width))
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = """() => [...document.querySelectorAll("body *")].filter(one => !one.closest(".scroll, .skip"))
        .filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"""
    assert opened.page.evaluate(beyond) == []


def test_in_print_there_is_nothing_to_press(open_page: OpenPage) -> None:
    opened = open_page(page_of(RECORDS["traced"]), color_scheme="dark")
    opened.page.emulate_media(media="print", color_scheme="dark")
    for part in ("nav", ".controls", ".theme", "#layer-slider"):
        assert not opened.page.is_visible(part)
    for part in (".answer", "#timeline-canvas", "#traffic-map", "#bill table"):
        assert opened.page.is_visible(part)
    assert painted(opened)[0] == "rgb(255, 255, 255)"


def test_what_is_drawn_by_the_program_is_light_on_paper_too(open_page: OpenPage) -> None:
    opened = open_page(page_of(RECORDS["traced"]), color_scheme="dark")
    dark = painted(opened)
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    paper = painted(opened)
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert painted(opened) == dark
    assert paper == painted(open_page(page_of(RECORDS["traced"]), color_scheme="light"))


def test_a_finger_reads_the_charts(open_page: OpenPage) -> None:
    opened = open_page(page_of(RECORDS["traced"]), width=390, height=844, has_touch=True, is_mobile=True)
    for chart, says in (("#timeline-canvas", "rank "), ("#traffic-map", "rank "), (".stacks", "layer ")):
        opened.page.tap(chart)
        section = opened.page.locator("section").filter(has=opened.page.locator(chart))
        assert section.locator(".says").inner_text().startswith(says)


# Without a mouse ---------------------------------------------------------------------------------------------


def test_the_keyboard_reaches_everything_in_order_and_shows_where_it_is(open_page: OpenPage) -> None:
    opened = open_page(page_of(RECORDS["traced"]))
    program = """all => all
        .filter(one => one.checkVisibility() && !one.closest("details:not([open]) > :not(summary)"))
        .map((one, number) => one.dataset.place = `${number}`)"""
    selector = "a, select, button, canvas, input, summary, [tabindex='0']"
    expected = opened.page.eval_on_selector_all(selector, program)
    reached = []
    for _ in expected:
        opened.page.keyboard.press("Tab")
        reached.append(
            opened.page.evaluate(
                "() => [document.activeElement.dataset.place, getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    assert [place for place, _ in reached] == expected
    assert {outline for _, outline in reached} == {"solid"}


def test_the_timeline_is_read_with_keys(open_page: OpenPage) -> None:
    record = RECORDS["traced"]
    opened = open_page(page_of(record))
    opened.page.focus("#timeline-canvas")

    def said(*keys: str) -> str:
        for key in keys:
            opened.page.keyboard.press(key)
        return opened.page.inner_text("#timeline-says")

    spans = [span for span in record.per_worker[0].spans if span.duration_us]
    assert said("ArrowRight").startswith(f"rank 0, start or end, {ACTIVITIES[spans[0].activity]}")
    second = record.per_worker[0].spans[1]
    assert said("ArrowRight").startswith(f"rank 0, start or end, {ACTIVITIES[second.activity]} ")
    assert said("ArrowDown", "ArrowDown").startswith("rank 2, ")
    assert said("ArrowUp").startswith("rank 1, ")
    waits = next(number for number, span in enumerate(record.per_worker[1].spans) if span.peer >= 0)
    told = said("Home", *["ArrowLeft"] * 50, *["ArrowRight"] * waits)
    assert told.endswith("for rank 2")
    assert "wait" in told


def test_the_timeline_zooms_by_keys_and_by_buttons(open_page: OpenPage) -> None:
    opened = open_page(page_of(RECORDS["traced"]))

    def drawn(press: str, by_key: bool) -> str:
        opened.page.keyboard.press(press) if by_key else opened.page.click(f'button:text-is("{press}")')
        settle(opened)
        found: str = opened.page.evaluate("document.getElementById('timeline-canvas').toDataURL()")
        return found

    opened.page.focus("#timeline-canvas")
    whole, near, all_ = drawn("0", True), drawn("+", True), drawn("0", True)
    assert whole == all_ != near
    pressed = [drawn(name, False) for name in ("Zoom in", "Later", "Earlier", "Zoom out", "Show all")]
    assert pressed[0] != pressed[1]
    assert pressed[-1] == whole


def test_the_traffic_is_read_with_keys(open_page: OpenPage) -> None:
    record = RECORDS["traced"]
    opened = open_page(page_of(record))
    opened.page.focus("#traffic-map")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
        opened.page.keyboard.press(key)
    assert opened.page.inner_text("#traffic-says") == f"rank 1 to rank 3: {record.per_worker[1].bytes_to[3]:,} bytes"
    opened.page.keyboard.press("ArrowUp")
    assert opened.page.inner_text("#traffic-says") == f"rank 0 to rank 3: {record.per_worker[0].bytes_to[3]:,} bytes"


def test_squares_of_many_ranks_are_named(open_page: OpenPage) -> None:
    record = made_record(129, 2)
    opened = open_page(report(record))
    opened.page.focus("#traffic-map")
    for key in ("ArrowDown", *["ArrowRight"] * 70):
        opened.page.keyboard.press(key)
    size = record.per_worker[0].bytes_to[128] + record.per_worker[1].bytes_to[128]
    assert opened.page.inner_text("#traffic-says") == f"ranks 0 to 1 to ranks 128 to 128: {size:,} bytes"


def test_the_layers_are_read_with_the_slider(open_page: OpenPage) -> None:
    record = RECORDS["traced"]
    opened = open_page(page_of(record))
    opened.page.focus("#layer-slider")
    opened.page.keyboard.press("End")
    told = opened.page.inner_text("#layer-says")
    assert told.startswith(f"layer {record.layers}, ")
    assert f"bytes sent {record.per_layer[-1]['counters']['bytes_sent']:,}" in told


def test_a_table_sorts_by_a_column(open_page: OpenPage) -> None:
    record = RECORDS["traced"]
    opened = open_page(page_of(record))
    opened.page.click("#stragglers th button:text-is('waited')")
    waited = [sum(worker.seconds["wait"]) for worker in record.per_worker]
    ranks = opened.page.eval_on_selector_all("#stragglers tbody th", "all => all.map(one => Number(one.textContent))")
    assert ranks == sorted(range(5), key=lambda rank: -waited[rank])
    assert opened.page.get_attribute("#stragglers th:has-text('waited') >> nth=0", "aria-sort") == "descending"
