"""When the ranks of a traced run did what, in one time, and which messages somebody waited for.

Ranks may run on machines whose clocks differ. What is certain is that no message comes before its source turned to the
layer it belongs to: where the clocks say otherwise, the rank that received it is shown later, by as little as will do.
Trace and report both show a run so, by `aligned`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from fsdcore.errors import InputError
from fsdcore.record.record import Record
from fsdcore.record.spans import ACTIVITIES, WAIT, Span

__all__ = ["Aligned", "Flow", "Slice", "Timeline", "aligned", "shown_later", "timeline_of"]

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

    It left at `left` and was there at `came`, within these slices; the first is never the later.
    """

    source: int
    wait: int
    left: int
    came: int


class Timeline(NamedTuple):
    """Slices by rank, in order and without overlap; flows; by how many microseconds which ranks are shown `later`.

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


class Aligned(NamedTuple):
    """A record whose workers started and ended in one time, and by how many microseconds which ranks are now later."""

    record: Record
    later: dict[int, int]


def aligned(record: Record) -> Aligned:
    """The record in one time; one that was not traced as it is, since nothing tells by how much its clocks differ.

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
    """What a reader must know where clocks differed: a clause."""
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
