"""Reading the record of a run from a file, and checking that it is one that a run can have written.

A sound record is whole, and its numbers are small enough to be drawn.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import msgspec

from fsdcore.decoding import from_json
from fsdcore.errors import FormatError, InputError
from fsdcore.files import read_document
from fsdcore.record.record import ACTIVITIES, COUNTERS, RECORD_VERSION, Record, Span, WorkerRecord

_COUNTERS, _ACTIVITIES = frozenset(COUNTERS), frozenset(ACTIVITIES)
# Seconds of a clock until the year 5138, and what any counter stays below.
_MOST_SECONDS, _MOST_COUNTED = 1e11, 1e18
# The end of a span, so that all times stay whole numbers for every reader.
_LONGEST_US = 1 << 52


class _Versioned(msgspec.Struct):
    version: int = 1


def read_record(file: str | os.PathLike[str]) -> Record:
    """The record that a run wrote to `file`; `FormatError` if it is another version, not whole, or no record."""
    name = os.fspath(file)

    def refusal(reason: str) -> FormatError:
        return FormatError(f"not the record of a run: {reason}", file=name)

    data = read_document(name)
    version = from_json(data, _Versioned, refusal).version
    if version != RECORD_VERSION:
        raise FormatError(f"a record of version {version}; this release reads version {RECORD_VERSION}", file=name)
    record = from_json(data, Record, refusal)
    try:
        check(record)
    except InputError as error:
        raise FormatError(f"{error.message}; make it again with `fsd run --record`", file=name) from error
    return record


def check(record: Record) -> None:
    """`InputError` unless `record` has the numbers of all its workers and layers, each within what a run can reach."""
    _check_shape(record)
    counted = chain(_counted(record), _billed(record))
    if not (_within(_seconds(record), _MOST_SECONDS) and _within(counted, _MOST_COUNTED)):
        raise InputError("the record has seconds or counters that no run can have")
    for worker in record.per_worker:
        if worker.ended < worker.started:
            raise InputError(f"worker {worker.rank} of the record ends before it starts")
        _check_spans(record, worker)


def _check_shape(record: Record) -> None:
    """`InputError` unless every worker and layer is there, each with all its numbers."""
    if record.workers < 1 or record.layers < 1 or len(record.per_worker) != record.workers:
        raise InputError(f"the record has {len(record.per_worker)} workers of {record.workers}, {record.layers} layers")
    if len(record.per_layer) != record.layers + 1 or not all(_whole(layer) for layer in record.per_layer):
        raise InputError(f"the record does not have the counters and seconds of its {record.layers} layers")
    _check_totals(record)
    for rank, worker in enumerate(record.per_worker):
        if worker.rank != rank or not _of(worker, record):
            raise InputError(f"worker {rank} of the record does not have the numbers of every rank and layer")


def _check_totals(record: Record) -> None:
    first = record.per_worker[0]
    if not {len(first.bytes_to), len(first.waits_for)} <= {0, record.workers}:
        raise InputError(f"the record has traffic or waits of another number of ranks than {record.workers}")
    if not set(record.counters) >= _COUNTERS:
        raise InputError("the record does not have all counters")


def _whole(tables: Mapping[str, Mapping[str, float]]) -> bool:
    return set(tables.get("counters", {})) >= _COUNTERS and set(tables.get("seconds", {})) >= _ACTIVITIES


def _of(worker: WorkerRecord, record: Record) -> bool:
    return (
        worker.whole
        and len(worker.counters[COUNTERS[0]]) == record.layers + 1
        and len(worker.bytes_to) == len(record.per_worker[0].bytes_to)
        and len(worker.waits_for) == len(record.per_worker[0].waits_for)
    )


def _check_spans(record: Record, worker: WorkerRecord) -> None:
    end = 0
    for number, span in enumerate(worker.spans):
        problem = _problem(span, end, record)
        if problem:
            raise InputError(f"worker {worker.rank} of the record, span {number}: {problem}")
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


def _within(numbers: Iterable[float], most: float) -> bool:
    return all(0 <= number < most for number in numbers)


def _billed(record: Record) -> Iterator[float]:
    """Settings that bills are made with."""
    for name in ("memory_mb", "billed_start_seconds"):
        told = record.settings.get(name)
        if isinstance(told, int | float):
            yield told


def _seconds(record: Record) -> Iterator[float]:
    yield record.wall_seconds
    yield from chain.from_iterable(layer["seconds"].values() for layer in record.per_layer)
    for worker in record.per_worker:
        yield from (worker.started, worker.ended, *worker.waits_for)
        yield from chain.from_iterable(worker.seconds.values())


def _counted(record: Record) -> Iterator[float]:
    yield from (record.samples, record.batches, *record.counters.values())
    yield from chain.from_iterable(layer["counters"].values() for layer in record.per_layer)
    for worker in record.per_worker:
        yield from (worker.peak_memory_bytes, worker.spans_dropped, *worker.bytes_to)
        yield from chain.from_iterable(worker.counters.values())
