"""Spans: when one worker did what, put together as it goes, so that there are only a few for each batch and layer.

A stretch is what a worker does for one batch and layer until it turns to another. In each, the longest waits stand
where they were; between them the pieces of one activity are put together, in the order in which the activities began.
So the time of each activity is kept, and which piece of it came before which piece of another is not; short waits
that are put together do not say whom they were for, as they no longer end when a message came.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

__all__ = ["ACTIVITIES", "MOST_SPANS", "WAIT", "Span", "SpanLog"]

ACTIVITIES = ("load", "multiply", "encode", "decode", "send", "wait")
WAIT = ACTIVITIES.index("wait")

# A worker's spans at most: as text of up to 63 bytes each they fit what it may contribute to a gather, and its end is
# where a run would fail of them.
MOST_SPANS = 4_000_000
# So many waits of a stretch stand by themselves, if they are not short.
_MOST_WAITS = 3
# What is shorter joins the longest span beside it.
_SHORT_US = 20


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A time in which a worker did one thing, in whole microseconds from the worker's `started`.

    `activity` is an index into `ACTIVITIES`; `batch` is -1 and `layer` 0 for what belongs to none. `peer` is the rank
    whose message ended the wait, -1 for waits put together and for all else. The spans of a worker are in order and do
    not overlap.
    """

    activity: int
    batch: int
    layer: int
    start_us: int
    duration_us: int
    peer: int = -1


class _Piece(NamedTuple):
    activity: int
    start: int
    end: int
    peer: int

    @property
    def length(self) -> int:
        return self.end - self.start


class SpanLog:
    """Takes what one thread did, piece by piece, in order. Spans beyond the first `most` are dropped, and counted."""

    def __init__(self, most: int = MOST_SPANS) -> None:
        self.dropped = 0
        self._most = most
        self._spans: list[Span] = []
        self._pieces: list[_Piece] = []
        self._place = (-1, 0)
        self._end = 0

    def add(self, activity: int, place: tuple[int, int], start: float, end: float, peer: int = -1) -> None:
        """A piece for `place`, (batch, layer), from `start` to `end`, both in seconds since the worker began."""
        if place != self._place:
            self._close()
            self._place = place
        # Whole numbers of the ends, not of the length, so that rounding makes no overlap.
        first = max(int(1e6 * start), self._end)
        self._end = max(int(1e6 * end), first)
        self._pieces.append(_Piece(activity, first, self._end, peer))

    def spans(self) -> list[Span]:
        """All so far."""
        self._close()
        return list(self._spans)

    def _close(self) -> None:
        """Make the spans of a stretch."""
        waits = [piece for piece in self._pieces if piece.activity == WAIT and piece.length >= _SHORT_US]
        alone = set(sorted(waits, key=lambda piece: -piece.length)[:_MOST_WAITS])
        together: list[_Piece] = []
        for piece in self._pieces:
            if piece in alone:
                self._put_together(together)
                self._write(piece.activity, piece.start, piece.length, piece.peer)
                together = []
            else:
                together.append(piece)
        self._put_together(together)
        self._pieces = []

    def _put_together(self, pieces: list[_Piece]) -> None:
        """One span for each activity, those that are short left to the longest."""
        lengths: dict[int, int] = {}
        for piece in pieces:
            lengths[piece.activity] = lengths.get(piece.activity, 0) + piece.length
        if not sum(lengths.values()):
            return
        longest = max(lengths, key=lengths.__getitem__)
        short = [activity for activity in lengths if lengths[activity] < _SHORT_US and activity != longest]
        lengths[longest] += sum(lengths.pop(activity) for activity in short)
        start = pieces[0].start
        for activity, length in lengths.items():
            self._write(activity, start, length)
            start += length

    def _write(self, activity: int, start: int, length: int, peer: int = -1) -> None:
        if len(self._spans) < self._most:
            self._spans.append(Span(activity, *self._place, start, length, peer))
        else:
            self.dropped += 1
