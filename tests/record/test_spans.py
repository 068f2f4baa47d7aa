"""Spans: few, in order, and no time of any activity lost."""

from __future__ import annotations

import itertools
from inspect import signature

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.record.record import ACTIVITIES, MOST_SPANS, WAIT, Span, SpanLog
from fsdcore.worker.collectives import Collectives

LOAD, MULTIPLY, ENCODE, SEND = (ACTIVITIES.index(name) for name in ("load", "multiply", "encode", "send"))

# A piece: activity, (batch, layer), microseconds it lasts and those before it, peer.
pieces = st.tuples(
    st.integers(0, len(ACTIVITIES) - 1),
    st.tuples(st.integers(-1, 1), st.integers(0, 2)),
    st.integers(0, 200),
    st.integers(0, 30),
    st.integers(0, 5),
)


def log_of(*given: tuple[int, tuple[int, int], int, int, int]) -> list[Span]:
    """The spans of pieces that follow each other."""
    log, now = SpanLog(), 0
    for activity, place, length, before, peer in given:
        now += before
        log.add(activity, place, now / 1e6, (now + length) / 1e6, peer if activity == WAIT else -1)
        now += length
    return log.spans()


@settings(deadline=None)
@given(st.lists(pieces, max_size=40))
def test_spans_never_overlap_and_keep_all_time(given: list[tuple[int, tuple[int, int], int, int, int]]) -> None:
    spans = log_of(*given)
    for before, after in itertools.pairwise(spans):
        assert before.start_us + before.duration_us <= after.start_us
    assert all(span.duration_us > 0 for span in spans)
    ends = {(sum(sum(piece[2:4]) for piece in given[: number + 1]), piece[4]) for number, piece in enumerate(given)}
    for span in spans:
        # Exact to the microsecond that rounding may take.
        end = span.start_us + span.duration_us
        assert span.peer == -1 or (span.activity == WAIT and {(end, span.peer), (end + 1, span.peer)} & ends)
    for place in {piece[1] for piece in given}:
        spent = sum(piece[2] for piece in given if piece[1] == place)
        # A microsecond for each of its ends.
        assert abs(sum(s.duration_us for s in spans if (s.batch, s.layer) == place) - spent) <= 2 * len(given)


def test_pieces_of_one_activity_are_put_together() -> None:
    spans = log_of(*[(activity, (0, 2), 50, 0, -1) for _ in range(10) for activity in (ENCODE, SEND)])
    assert spans == [Span(ENCODE, 0, 2, 0, 500), Span(SEND, 0, 2, 500, 500)]


def test_a_short_piece_joins_the_longest_beside_it() -> None:
    spans = log_of((LOAD, (0, 2), 5, 0, -1), (MULTIPLY, (0, 2), 100, 0, -1))
    assert spans == [Span(MULTIPLY, 0, 2, 0, 105)]


def test_long_waits_stand_where_they_were_and_name_whom_they_were_for() -> None:
    spans = log_of(
        (MULTIPLY, (0, 2), 40, 0, -1),
        (WAIT, (0, 2), 300, 10, 4),
        (MULTIPLY, (0, 2), 60, 0, -1),
        (WAIT, (0, 2), 25, 0, 1),
    )
    assert spans == [
        Span(MULTIPLY, 0, 2, 0, 40),
        Span(WAIT, 0, 2, 50, 300, 4),
        Span(MULTIPLY, 0, 2, 350, 60),
        Span(WAIT, 0, 2, 410, 25, 1),
    ]


def test_many_waits_are_put_together_but_the_longest() -> None:
    waits = [(WAIT, (0, 2), 30 + peer, 0, peer) for peer in range(60)]
    spans = log_of(*[piece for wait in waits for piece in (wait, (MULTIPLY, (0, 2), 40, 0, -1))])
    assert [span.peer for span in spans if span.activity == WAIT] == [-1, 57, 58, 59]
    assert len(spans) <= 9


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5))
def test_what_runs_inside_another_piece_does_not_overlap_it(outer: int, inner: int) -> None:
    log = SpanLog()
    log.add(SEND, (0, 1), 1e-3 * outer, 1e-3 * (outer + inner))
    log.add(LOAD, (0, 1), 0.0, 1e-3 * (outer + inner) + 1e-3)
    first, second = log.spans()
    assert first.start_us + first.duration_us <= second.start_us
    assert second.start_us + second.duration_us <= 1000 * (outer + inner) + 1000


def test_batches_under_way_at_once_are_told_apart() -> None:
    spans = log_of(*[(MULTIPLY, (batch, 2), 100, 0, -1) for batch in (0, 1, 0, 0)])
    assert [(span.batch, span.duration_us) for span in spans] == [(0, 100), (1, 100), (0, 200)]


def test_spans_beyond_the_most_are_dropped_and_counted() -> None:
    log = SpanLog(most=3)
    for number in range(5):
        log.add(MULTIPLY, (number, 1), number * 1e-3, (number + 0.5) * 1e-3)
    assert [span.batch for span in log.spans()] == [0, 1, 2]
    assert log.dropped == 2


def test_the_most_spans_fit_what_a_worker_may_contribute_to_a_gather() -> None:
    largest = Span(len(ACTIVITIES) - 1, 2**31 - 1, 2**31 - 1, 10**12 - 1, 10**12 - 1, 2**31 - 1)
    # A comma each, and 8 MiB for the rest of the record.
    assert (
        MOST_SPANS * (len(msgspec.json.encode(largest)) + 1) + (8 << 20)
        < signature(Collectives).parameters["limit"].default
    )
