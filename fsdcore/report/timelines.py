"""What the ranks of a traced run did when, on one clock, and which messages ended a wait.

Ranks may run on machines whose clocks differ. But no message arrives before its source began the layer it belongs to.
Where the clocks say otherwise, `aligned` shifts the rank that received it to a later time, by the smallest shift that
is possible. Trace and report both show a run so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from fsdcore.errors import InputError
from fsdcore.record.record import ACTIVITIES, WAIT, Record, Span, WorkerRecord
from fsdcore.report.charts import Markup, as_table, element, joined, legend, table
from fsdcore.report.facts import DRAWN, MOST_RANKS, OTHER, ends, shown_ranks, worker_seconds
from fsdcore.text import count, exact

_SEND = ACTIVITIES.index("send")
_NO_LAYER = (-1, 0)


class Slice(NamedTuple):
    """A span of a rank; `start` in microseconds since the first worker's start."""

    rank: int
    start: int
    span: Span

    @property
    def last(self) -> int:
        """The last microsecond in it."""
        return self.start + self.span.duration_us - 1


class Flow(NamedTuple):
    """A message that ended a wait: the positions, among the slices, of what its source did and of the wait.

    It was sent at `left` and arrived at `came`, within these slices; `left` is never after `came`.
    """

    source: int
    wait: int
    left: int
    came: int


class Timeline(NamedTuple):
    """Slices by rank, in order and without overlap; flows; and `later`, the microseconds by which ranks were shifted.

    `hidden` flows are left out: their source was too short to be a span, or clocks that drift would draw one twice.
    """

    slices: list[Slice]
    flows: list[Flow]
    later: dict[int, int]
    hidden: int


class _Message(NamedTuple):
    """A wait, and the slices in which the message that ended it may have left, the likeliest first."""

    wait: int
    sources: tuple[int, ...]


class Aligned(NamedTuple):
    """A record whose workers are on one clock, and by how many microseconds which ranks were shifted."""

    record: Record
    later: dict[int, int]


def aligned(record: Record) -> Aligned:
    """The record on one clock. A record without a trace is returned as it is, since nothing shows how its clocks
    differ.

    The record must be sound (`fsdcore.record.file`).
    """
    slices = list(_slices(record))
    shifts = _shifts(slices, list(_messages(slices)), record.workers)
    later = {rank: shift for rank, shift in enumerate(shifts) if shift}
    if not later:
        return Aligned(record, later)
    first = _first(record)
    workers = []
    for worker, shift in zip(record.per_worker, shifts, strict=True):
        lived = worker.ended - worker.started
        # To whole microseconds: so that all who show it agree to the last.
        started = first + (_microseconds(worker.started - first) + shift) / 1e6
        workers.append(msgspec.structs.replace(worker, started=started, ended=started + lived))
    return Aligned(msgspec.structs.replace(record, per_worker=workers), later)


def timeline_of(record: Record) -> Timeline:
    """The timeline of a sound record; `InputError` if it was not traced."""
    if not record.traced:
        raise InputError("the record has no trace: run again with fsd run --trace --record FILE")
    shown, later = aligned(record)
    slices = list(_slices(shown))
    flows = [flow for message in _messages(slices) for flow in _flow(slices, message)]
    return Timeline(slices, flows, later, sum(map(_ended_by_one, slices)) - len(flows))


def shown_later(later: Mapping[int, int]) -> str:
    """A clause for the reader that says which ranks were shifted because clocks differed."""
    ranks = "1 rank is" if len(later) == 1 else f"{len(later)} ranks are"
    most = max(later.values())
    return f"by their clocks, messages came before they were sent: {ranks} shown later, by up to {most:,} µs"


def _first(record: Record) -> float:
    return min(worker.started for worker in record.per_worker)


def _microseconds(seconds: float) -> int:
    return round(1e6 * seconds)


def _slices(record: Record) -> Iterator[Slice]:
    """All spans, as the clocks of the workers have them."""
    first = _first(record)
    for worker in record.per_worker:
        began = _microseconds(worker.started - first)
        for span in worker.spans:
            yield Slice(worker.rank, began + span.start_us, span)


def _messages(slices: Sequence[Slice]) -> Iterator[_Message]:
    places: dict[tuple[int, int, int], list[int]] = {}
    last: dict[int, int] = {}
    for number, item in enumerate(slices):
        places.setdefault((item.rank, item.span.batch, item.span.layer), []).append(number)
        last[item.rank] = number
    for number, item in enumerate(slices):
        if _ended_by_one(item):
            sources = _sources(slices, item.span, places, last)
            if sources:
                yield _Message(number, sources)


def _ended_by_one(item: Slice) -> bool:
    return item.span.activity == WAIT and item.span.peer >= 0


def _sources(
    slices: Sequence[Slice], wait: Span, places: Mapping[tuple[int, int, int], list[int]], last: Mapping[int, int]
) -> tuple[int, ...]:
    """Where the message that ended the wait may have left; rows leave in the first stretch of their layer."""
    if (wait.batch, wait.layer) == _NO_LAYER:
        # The record of a rank leaves after all that is in it.
        return (last[wait.peer],) if wait.peer in last else ()
    there = places.get((wait.peer, wait.batch, wait.layer), [])
    sends = [number for number in there if slices[number].span.activity == _SEND]
    return (*sends[:1], *there[:1])


def _shifts(slices: Sequence[Slice], messages: Iterable[_Message], workers: int) -> list[int]:
    """By how much each rank is shown later, so that no message comes before it can have left."""
    least: dict[tuple[int, int], int] = {}
    for message in messages:
        source, wait = slices[message.sources[-1]], slices[message.wait]
        pair = source.rank, wait.rank
        least[pair] = max(least.get(pair, source.start - wait.last), source.start - wait.last)
    shifts = [0] * workers
    # Each round settles at least one more rank, unless clocks drift so that no shift can help.
    for _ in range(workers):
        before = list(shifts)
        for (source_rank, rank), shift in least.items():
            shifts[rank] = max(shifts[rank], shifts[source_rank] + shift)
        if shifts == before:
            break
    return shifts


def _flow(slices: Sequence[Slice], message: _Message) -> Iterator[Flow]:
    """The message as an arrow, unless there is no source that came before."""
    came = slices[message.wait].last
    early = (number for number in message.sources if slices[number].start <= came)
    for number in itertools.islice(early, 1):
        yield Flow(number, message.wait, min(slices[number].last, came), came)


_KEYS = (
    "Left and right go from span to span, up and down from rank to rank; plus and minus zoom, 0 shows all, "
    "Page Up and Page Down move. Drag to move, Ctrl and the wheel zoom."
)
_FEWER = f"Of so many ranks, {MOST_RANKS:,} at most are drawn and listed: those that ended last or are waited for most."
_HINT = "Point at a span to read it."
_BUTTONS = (("in", "Zoom in"), ("out", "Zoom out"), ("left", "Earlier"), ("right", "Later"), ("all", "Show all"))


def timeline(record: Record, later: Mapping[int, int]) -> Markup:
    """The section: a drawing that the page's program makes, and seconds by rank and activity as a table.

    `later`: by how many microseconds which ranks are shown later than their clocks say.
    """
    return element(
        "section",
        element("h2", "Timeline by rank", id="timeline-title"),
        *([] if record.workers <= MOST_RANKS else [element("p", _FEWER, class_="hint")]),
        _traced_note(later) if record.traced else _laid_note(),
        legend(),
        _controls(),
        element(
            "canvas",
            id="timeline-canvas",
            tabindex=0,
            role="application",
            aria_roledescription="timeline",
            aria_label=f"Timeline of {record.workers} ranks",
            aria_describedby="timeline-keys",
        ),
        element("noscript", element("p", "The drawing needs JavaScript; the table below says the same.")),
        element("p", _HINT, id="timeline-says", class_="says", aria_live="polite"),
        element("p", _KEYS, id="timeline-keys", class_="muted keys"),
        as_table("Seconds by rank", _table(record)),
        id="timeline",
        aria_labelledby="timeline-title",
    )


def _traced_note(later: Mapping[int, int]) -> Markup:
    said = "When each rank did what, by its own clock. Short pieces of one activity in one layer are drawn together."
    if later:
        said = f"{said} {shown_later(later).capitalize()}."
    return element("p", said, class_="muted", id="timeline-note")


def _laid_note() -> Markup:
    return element(
        "p",
        element("strong", "This run was not traced. "),
        "Each rank begins where it started; its seconds are laid end to end, layer after layer, not where they were. "
        "For the true timeline run again with ",
        element("code", "fsd run --trace"),
        ".",
        class_="hint",
        id="timeline-note",
    )


def _controls() -> Markup:
    buttons = [element("button", name, type="button", data_do=what) for what, name in _BUTTONS]
    return element("div", joined(buttons), class_="controls", role="group", aria_label="Timeline")


def _table(record: Record) -> Markup:
    first = min(worker.started for worker in record.per_worker)
    rows, ended = [], ends(record)
    for rank in shown_ranks(record, MOST_RANKS):
        worker = record.per_worker[rank]
        spent = worker_seconds(worker)
        times = (exact(worker.started - first), exact(ended[rank]))
        rows.append((str(worker.rank), *times, *(exact(spent[name]) for name in DRAWN), count(len(worker.spans))))
    headings = ("rank", "started", "ended", *DRAWN, "spans")
    return table("Seconds by rank", headings, rows, sortable=True)


# Spans of a page: each takes about 20 bytes.
MOST_SPANS = 120_000
_SHORTEST_US = 16

# One span a row: activity, batch, layer, start and duration in µs, peer.
Spans: TypeAlias = npt.NDArray[np.int64]
_ACTIVITY, _BATCH, _LAYER, _START, _DURATION, _PEER = range(6)


class Drawn(NamedTuple):
    """The spans of each rank that is shown, from the first worker's start. `traced`: they lie where they were.

    Spans shorter than `merged_us` are drawn together; 0 if none is.
    """

    ranks: dict[int, Spans]
    traced: bool
    merged_us: int


def spans_of(record: Record, most: int = MOST_SPANS) -> Drawn:
    """The spans of a run; if it was not traced, each worker's seconds laid end to end, layer after layer."""
    first = min(worker.started for worker in record.per_worker)
    make = _traced if record.traced else _laid
    ranks = {rank: make(record.per_worker[rank], first) for rank in shown_ranks(record, MOST_RANKS)}
    shortest = 0
    while sum(map(len, ranks.values())) > most:
        shortest = 2 * shortest or _SHORTEST_US
        ranks = {rank: _merged(spans, shortest) for rank, spans in ranks.items()}
    return Drawn(ranks, record.traced, shortest)


def _offset(worker: WorkerRecord, first: float) -> int:
    return round(1e6 * (worker.started - first))


def _traced(worker: WorkerRecord, first: float) -> Spans:
    rows = [
        (span.activity, span.batch, span.layer, span.start_us, span.duration_us, span.peer) for span in worker.spans
    ]
    spans = np.array(rows, np.int64).reshape(-1, 6)
    spans[:, _START] += _offset(worker, first)
    return spans[np.argsort(spans[:, _START], kind="stable")]


def _laid(worker: WorkerRecord, first: float) -> Spans:
    seconds = np.array([worker.seconds[name] for name in ACTIVITIES]).T
    durations = np.rint(1e6 * seconds).astype(np.int64)
    layer, activity = np.nonzero(durations)
    lengths = durations[layer, activity]
    starts = np.cumsum(lengths) - lengths + _offset(worker, first)
    nothing = np.full_like(layer, -1)
    return np.stack([activity, nothing, layer, starts, lengths, nothing], axis=1)


def _merged(spans: Spans, shortest: int) -> Spans:
    """What is shorter than `shortest` µs, as one span for each activity in each stretch of about that length.

    A stretch lies between two spans that are not short; in it the activities follow one another.
    """
    short = spans[:, _DURATION] < shortest
    many, before = spans[short], np.cumsum(~short)[short]
    changes = np.diff(before, prepend=-1) + np.diff(many[:, _START] // shortest, prepend=-1)
    stretch = np.cumsum(changes != 0)
    group, first, inverse = np.unique(
        stretch * len(ACTIVITIES) + many[:, _ACTIVITY], return_index=True, return_inverse=True
    )
    merged = many[first]
    merged[:, _DURATION] = np.bincount(inverse, many[:, _DURATION], len(first)).astype(np.int64)
    merged[:, _PEER] = -1
    ends = np.cumsum(merged[:, _DURATION])
    _, opening, place = np.unique(group // len(ACTIVITIES), return_index=True, return_inverse=True)
    begin = np.minimum.reduceat(merged[:, _START], opening) if len(opening) else opening
    lead = (ends - merged[:, _DURATION])[opening]
    merged[:, _START] = (begin - lead)[place] + ends - merged[:, _DURATION]
    both = np.concatenate([spans[~short], merged])
    return both[np.argsort(both[:, _START], kind="stable")]


def timeline_data(record: Record) -> dict[str, Any]:
    """What the page's program draws: flat integers, starts as steps from the start before."""
    drawn = spans_of(record)
    first = min(worker.started for worker in record.per_worker)
    ranks = []
    for rank, spans in drawn.ranks.items():
        worker = record.per_worker[rank]
        steps = spans.copy()
        steps[:, _START] = np.diff(spans[:, _START], prepend=0)
        start = _offset(worker, first)
        end = start + round(1e6 * math.fsum(worker_seconds(worker).values()))
        ranks.append({"rank": rank, "start": start, "end": end, "spans": steps.ravel().tolist()})
    return {"activities": [*ACTIVITIES, OTHER], "ranks": ranks, "traced": drawn.traced, "merged": drawn.merged_us}
