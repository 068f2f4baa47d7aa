"""A traced run as a picture: its record in the trace event format, which Perfetto and Chrome show.

One row for each rank, a slice for each span, an arrow for each message that ended a wait. All times are whole
microseconds since the start of the first worker.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias

import msgspec

from fsdcore.errors import InputError
from fsdcore.record.file import check
from fsdcore.record.record import ACTIVITIES, Record
from fsdcore.report.timelines import Flow, Slice, Timeline, shown_later, timeline_of

# What viewers open in a moment.
MOST_BYTES = 5_000_000

_SEND = ACTIVITIES.index("send")
_SEPARATOR = b",\n"
# The part of a trace that its arrows may take, where not all fits: one in so many bytes.
_SHARE_OF_FLOWS = 4
# Room for what is said of that which was left out.
_SAID = 200

_Event: TypeAlias = dict[str, Any]


class Trace(NamedTuple):
    """A trace, and what is in it. `data` is JSON; `notes` say what a reader must know, a line each."""

    data: bytes
    slices: int
    messages: int
    notes: tuple[str, ...]


class _Drawn(NamedTuple):
    """Slices and flows of a timeline as events, by their positions there."""

    slices: list[bytes]
    flows: list[bytes]


def make_trace(record: Record, most_bytes: int = MOST_BYTES) -> Trace:
    """The trace of a run that was traced.

    Where all would be more than `most_bytes`, the shortest slices and waits are left out, and the notes say how many.
    `InputError` for a record without spans or that is not sound, or if not even the names of the ranks fit.
    """
    check(record)
    timeline = timeline_of(record)
    notes = [*_notes(timeline), *_dropped(record)]
    room = most_bytes - len(_document(record, notes, [])) - _SAID
    if room < 0:
        raise InputError(f"a trace of {record.workers} ranks does not fit {most_bytes:,} bytes")
    drawn = _Drawn(_slices(record, timeline.slices), _flows(timeline))
    slices, flows = _within(room, timeline, drawn)
    if len(slices) < len(timeline.slices):
        missing = (timeline.slices[number] for number in range(len(timeline.slices)) if number not in slices)
        notes.append(_left_out([item.span.duration_us for item in missing], len(timeline.flows) - len(flows)))
    events = [drawn.slices[number] for number in sorted(slices)] + [drawn.flows[number] for number in sorted(flows)]
    return Trace(_document(record, notes, events), len(slices), len(flows), tuple(notes))


def _notes(timeline: Timeline) -> Iterator[str]:
    if timeline.later:
        yield shown_later(timeline.later)
    if timeline.hidden:
        yield f"{timeline.hidden:,} waits have no arrow: what ended them left in a span too short to show"


def _dropped(record: Record) -> Iterator[str]:
    short = {worker.rank: worker.spans_dropped for worker in record.per_worker if worker.spans_dropped}
    if short:
        yield (
            f"{len(short)} ranks had more spans than a record holds: the last {sum(short.values()):,} were not kept, "
            f"the most of rank {max(short, key=short.__getitem__)}; trace fewer batches at once"
        )


def _left_out(microseconds: Sequence[int], flows: int) -> str:
    return (
        f"to stay small, the {len(microseconds):,} shortest slices, {sum(microseconds):,} µs in all, "
        f"and {flows:,} arrows are left out"
    )


def _within(room: int, timeline: Timeline, drawn: _Drawn) -> tuple[set[int], set[int]]:
    """The slices and flows that fit into `room` bytes: all, or those of the longest waits, then the longest slices."""
    spans = [item.span.duration_us for item in timeline.slices]
    ends = [(flow.source, flow.wait) for flow in timeline.flows]
    slice_sizes, flow_sizes = ([len(event) + len(_SEPARATOR) for event in events] for events in drawn)
    if sum(slice_sizes) + sum(flow_sizes) <= room:
        return set(range(len(spans))), set(range(len(ends)))
    waits = sorted(range(len(ends)), key=lambda number: -spans[ends[number][1]])
    flows = _fitting(room // _SHARE_OF_FLOWS, waits, flow_sizes)
    order = [*itertools.chain.from_iterable(ends[number] for number in flows), *_longest_first(spans)]
    left = room - sum(flow_sizes[number] for number in flows)
    slices = set(_fitting(left, list(dict.fromkeys(order)), slice_sizes))
    return slices, {number for number in flows if slices.issuperset(ends[number])}


def _longest_first(durations: Sequence[int]) -> list[int]:
    return sorted(range(len(durations)), key=lambda number: -durations[number])


def _fitting(room: int, order: list[int], sizes: Sequence[int]) -> list[int]:
    """As many of `order`, from its beginning, as fit into `room`."""
    filled = itertools.accumulate(sizes[number] for number in order)
    return order[: sum(1 for _ in itertools.takewhile(room.__ge__, filled))]


# Events ------------------------------------------------------------------------------------------------------


def _slices(record: Record, slices: Sequence[Slice]) -> list[bytes]:
    return [msgspec.json.encode(_slice(record, item)) for item in slices]


def _slice(record: Record, item: Slice) -> _Event:
    span = item.span
    return {
        "ph": "X",
        "name": ACTIVITIES[span.activity],
        "ts": item.start,
        "dur": span.duration_us,
        **_row(item.rank),
        "args": _arguments(record, item),
    }


def _arguments(record: Record, item: Slice) -> _Event:
    """What a viewer tells of a slice. Bytes are counted by layer, for all batches together."""
    span = item.span
    told: _Event = {} if span.batch < 0 else {"layer": span.layer, "batch": span.batch}
    if span.peer >= 0:
        told["for rank"] = span.peer
    if span.activity == _SEND:
        name = "bytes" if record.batches == 1 else "bytes, all batches"
        told[name] = record.per_worker[item.rank].counters["bytes_sent"][span.layer]
    return told


def _flows(timeline: Timeline) -> list[bytes]:
    return [
        _SEPARATOR.join(map(msgspec.json.encode, _flow(number, flow, timeline)))
        for number, flow in enumerate(timeline.flows)
    ]


def _flow(number: int, flow: Flow, timeline: Timeline) -> tuple[_Event, _Event]:
    """An arrow's two ends, each within its slice."""
    shared = {"name": "rows", "cat": "rows", "id": number}
    source, wait = timeline.slices[flow.source].rank, timeline.slices[flow.wait].rank
    return (
        {"ph": "s", **shared, "ts": flow.left, **_row(source)},
        {"ph": "f", "bp": "e", **shared, "ts": flow.came, **_row(wait)},
    )


def _row(rank: int) -> _Event:
    # Viewers take thread 0 for an idle processor.
    return {"pid": 1, "tid": rank + 1}


# The document ------------------------------------------------------------------------------------------------


def _document(record: Record, notes: Sequence[str], events: Sequence[bytes]) -> bytes:
    names = map(msgspec.json.encode, _names(record))
    about = msgspec.json.encode(_about(record, notes))
    return b"".join(
        (
            b'{"displayTimeUnit":"ms","otherData":',
            about,
            b',"traceEvents":[\n',
            _SEPARATOR.join((*names, *events)),
            b"\n]}\n",
        )
    )


def _names(record: Record) -> Iterator[_Event]:
    title = f"run {record.run_id}: {record.backend}, {record.channel}"
    yield {"ph": "M", "name": "process_name", "ts": 0, "pid": 1, "tid": 0, "args": {"name": title}}
    for rank in range(record.workers):
        row = {"ph": "M", "ts": 0, **_row(rank)}
        yield {**row, "name": "thread_name", "args": {"name": f"rank {rank}"}}
        yield {**row, "name": "thread_sort_index", "args": {"sort_index": rank}}


def _about(record: Record, notes: Sequence[str]) -> _Event:
    """The run, as viewers show it beside the picture."""
    began = min(worker.started for worker in record.per_worker)
    told = ("run_id", "backend", "channel", "workers", "layers", "samples", "batches", "wall_seconds")
    return {
        **{name: getattr(record, name) for name in told},
        "started": datetime.fromtimestamp(began, UTC).isoformat(),
        "settings": record.settings,
        "counters": record.counters,
        "notes": list(notes),
    }
