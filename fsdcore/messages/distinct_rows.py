"""Finding the rows of a matrix that are equal to the bit, so that each is looked at, and sent, once."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Bools, Float32s

Index = npt.NDArray[np.intp]
Hashes = npt.NDArray[np.uint64]

# Values that are looked at together, so that what is made on the way stays small beside the matrix.
_AT_ONCE = 1 << 16
# Columns that tell most rows apart.
_GLANCE = 16


_FIRST: Index = np.zeros(1, np.intp)
_FIRST.setflags(write=False)


class Choice(NamedTuple):
    """Which distinct rows of a table are wanted, and which of those each of `rows` rows is.

    `numbers` is None if no two rows are equal, or all are.
    """

    rows: int
    distinct: Index
    numbers: Index | None

    @property
    def key(self) -> tuple[bytes, bytes]:
        """Equal for choices that differ in nothing but `rows`."""
        return self.distinct.tobytes(), b"" if self.numbers is None else self.numbers.tobytes()


class RowTable:
    """The distinct rows of a matrix, and the number of each row among them."""

    def __init__(self, values: Float32s, numbers: Index | None) -> None:
        self._values, self._numbers = values, numbers
        self._present = values != 0
        self._nonzeros = np.count_nonzero(self._present, axis=1)

    @classmethod
    def of(cls, values: Float32s) -> RowTable:
        """The table of `values`, float32 `(rows, columns)`."""
        first, numbers = _distinct(values)
        if first.size == values.shape[0]:
            return cls(values, None)
        return cls(values[first], numbers)

    def live(self) -> Bools:
        """The columns in which any row is not zero."""
        return np.asarray(self._present.any(axis=0))

    def over(self, live: Bools) -> RowTable:
        """The table over the given columns, which must be all that are live."""
        return self if live.all() else RowTable(self._values[:, live], self._numbers)

    def choose(self, positions: npt.NDArray[np.integer] | None = None) -> Choice:
        """The rows at `positions` of the matrix, or all."""
        if self._nonzeros.size == 1 and self._numbers is not None:
            rows = self._numbers.size if positions is None else positions.size
            return Choice(rows, _FIRST if rows else _FIRST[:0], None)
        numbers = self._rows(positions)
        distinct, own = _renumber(numbers, self._nonzeros.size)
        if distinct.size == numbers.size:
            return Choice(numbers.size, numbers, None)
        return Choice(numbers.size, distinct, own if distinct.size > 1 else None)

    def count(self, choice: Choice) -> tuple[int, int]:
        """Of the rows chosen: how many are not all zero, and the nonzeros in all."""
        counts = self._nonzeros[choice.distinct]
        if choice.numbers is not None:
            counts = counts[choice.numbers]
        times = choice.rows if counts.size == 1 else 1
        return times * int(np.count_nonzero(counts)), times * int(counts.sum())

    def pick(self, distinct: Index) -> tuple[Float32s, Bools]:
        """Distinct rows, and where they are not zero, `(distinct, columns)` both."""
        if distinct.size == self._nonzeros.size and bool((distinct[1:] > distinct[:-1]).all()):
            return self._values, self._present
        return self._values[distinct], self._present[distinct]

    def _rows(self, positions: npt.NDArray[np.integer] | None) -> Index:
        if self._numbers is None:
            return np.arange(self._nonzeros.size) if positions is None else positions.astype(np.intp)
        return self._numbers if positions is None else self._numbers[positions]


def _renumber(numbers: Index, count: int) -> tuple[Index, Index]:
    """The different numbers below `count`, ascending, and each number's place among them."""
    if count == 1:
        return numbers[:1], numbers
    used = np.zeros(count, bool)
    used[numbers] = True
    distinct = np.flatnonzero(used)
    place = np.empty(count, np.intp)
    place[distinct] = np.arange(distinct.size)
    return distinct, place[numbers]


def _distinct(values: Float32s) -> tuple[Index, Index]:
    """The first of each set of equal rows, in an order made from the values, and the number of each row among them."""
    words = np.ascontiguousarray(values).view(np.uint32)
    if words.shape[0] > 1 and (words[:, :_GLANCE] == words[0, :_GLANCE]).all() and (words == words[0]).all():
        return np.zeros(1, np.intp), np.zeros(words.shape[0], np.intp)
    first, numbers = _first_of_each(_hashes(words))
    if first.size < words.shape[0] and not _same(words, first[numbers]):
        # Rows that differ with one hash: so rare that all are sent as they are.
        everything = np.arange(words.shape[0])
        return everything, everything
    return first, numbers


def _first_of_each(hashes: Hashes) -> tuple[Index, Index]:
    """Where each different hash is first, by hash, and the number of each hash among them."""
    # As numpy.unique, which does more and takes three times as long for the few rows of a worker.
    order = hashes.argsort(kind="stable")
    ordered = hashes[order]
    begins = np.empty(hashes.size, bool)
    begins[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    numbers = np.empty(hashes.size, np.intp)
    numbers[order] = begins.cumsum() - 1
    return order[begins], numbers


def _same(words: npt.NDArray[np.uint32], of: Index) -> bool:
    step = max(1, _AT_ONCE // max(1, words.shape[1]))
    starts = range(0, words.shape[0], step)
    return all(np.array_equal(words[s : s + step], words[of[s : s + step]]) for s in starts)


def _hashes(words: npt.NDArray[np.uint32]) -> Hashes:
    factors = _factors(1 << (words.shape[1] - 1).bit_length() if words.shape[1] else 0)[: words.shape[1]]
    step = max(1, _AT_ONCE // max(1, words.shape[1]))
    hashes = np.empty(words.shape[0], np.uint64)
    for start in range(0, words.shape[0], step):
        hashes[start : start + step] = words[start : start + step].astype(np.uint64) @ factors
    return hashes


@lru_cache(maxsize=2)
def _factors(count: int) -> Hashes:
    """Odd numbers without a pattern (the finalizer of SplitMix64 over the natural numbers)."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) | np.uint64(1))
