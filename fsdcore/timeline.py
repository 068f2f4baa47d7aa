"""When the ranks of a traced run did what, in one time, and which messages somebody waited for.

Ranks may run on machines whose clocks differ. What is certain is that no message comes before its source turned to the
layer it belongs to: where the clocks say otherwise, the rank that received it is shown later, by as little as will do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fsdcore.errors import FormatError, InputError
from fsdcore.record import Record, WorkerRecord
from fsdcore.spans import ACTIVITIES, WAIT, Span

__all__ = ["Flow", "Slice", "Timeline", "timeline_of"]

_SEND = ACTIVITIES.index("send")
_NO_LAYER = (-1, 0)
# The end of the year 9999, and of a run that would last till then: all times stay whole numbers for every reader.
_LAST_SECOND = 253_402_300_800
_LONGEST_US = 1 << 52


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

    It left at `left` and was there at `came`, within these slices; the first is never the later.
    """

    source: int
    wait: int
    left: int
    came: int


class Timeline(NamedTuple):
    """Slices by rank, in order and without overlap; flows; by how many microseconds which ranks are shown later.

    `hidden` flows are left out: their source was too short to be a span, or clocks that drift tell of it twice.
    """

    slices: list[Slice]
    flows: list[Flow]
    later: dict[int, int]
    hidden: int


class _Message(NamedTuple):
    """A wait, and the slices in which the message that ended it may have left, the likeliest first."""

    wait: int
    sources: tuple[int, ...]


def timeline_of(record: Record) -> Timeline:
    """The timeline of a run; `InputError` if it was not traced, `FormatError` for spans that cannot be."""
    if not record.traced:
        raise InputError("the record has no trace: run again with fsd run --trace --record FILE")
    _check(record)
    slices = list(_slices(record))
    messages = list(_messages(slices))
    shifts = _shifts(slices, messages, record.workers)
    shown = [item._replace(start=item.start + shifts[item.rank]) for item in slices]
    flows = [flow for message in messages for flow in _flow(shown, message)]
    later = {rank: shift for rank, shift in enumerate(shifts) if shift}
    return Timeline(shown, flows, later, sum(map(_ended_by_one, slices)) - len(flows))


def _check(record: Record) -> None:
    if [worker.rank for worker in record.per_worker] != list(range(record.workers)):
        raise FormatError(f"the record must have ranks 0 to {record.workers - 1}, each once and in order")
    for worker in record.per_worker:
        if not 0 <= worker.started < _LAST_SECOND:
            raise FormatError(f"rank {worker.rank}: {worker.started} seconds since 1970 is no time for its start")
        if len(worker.counters.get("bytes_sent", ())) <= record.layers:
            raise FormatError(f"rank {worker.rank}: bytes_sent must be counted for each of {record.layers} layers")
        _check_spans(record, worker)


def _check_spans(record: Record, worker: WorkerRecord) -> None:
    end = 0
    for number, span in enumerate(worker.spans):
        problem = _problem(span, end, record)
        if problem:
            raise FormatError(f"rank {worker.rank}, span {number}: {problem}")
        end = span.start_us + span.duration_us


def _problem(span: Span, end: int, record: Record) -> str | None:
    """What is wrong with a span that follows one that ended at `end`; None if nothing."""
    if not 0 <= span.activity < len(ACTIVITIES):
        return f"there is no activity {span.activity}"
    if not (-1 <= span.batch < record.batches and 0 <= span.layer <= record.layers):
        return f"there is no batch {span.batch} or no layer {span.layer}"
    if not -1 <= span.peer < record.workers:
        return f"there is no rank {span.peer}"
    if span.duration_us < 1 or span.start_us < end:
        return "it takes no time, or begins before the one before it has ended"
    return "it ends later than can be" if span.start_us + span.duration_us > _LONGEST_US else None


def _slices(record: Record) -> Iterator[Slice]:
    """All spans, as the clocks of the workers have them."""
    first = min(worker.started for worker in record.per_worker)
    for worker in record.per_worker:
        began = round(1e6 * (worker.started - first))
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
