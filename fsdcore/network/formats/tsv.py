"""Lines of ``index<TAB>index<TAB>value``, indices from 1, as the Graph Challenge writes them.

Millions of lines are read at once by numpy and checked as whole arrays. Only where something is not as it
should be are the lines looked at one by one, to name the first that is wrong.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fsdcore.arrays import Int64s
from fsdcore.errors import FormatError
from fsdcore.files import PathLike
from fsdcore.network.formats.files import read_bytes
from fsdcore.network.matrices import MOST_NEURONS

_RECORD = np.dtype([("first", np.int64), ("second", np.int64), ("value", np.float32)])
_ALLOWED = b"0123456789+-.eE\t\n"
_INDEX = re.compile(rb"\+?[0-9]{1,18}")
_NUMBER = re.compile(rb"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf(inity)?)", re.IGNORECASE)


class Triples(NamedTuple):
    """The lines as arrays: 0-based `first` and `second` (int64), `values` (float32), in order of the file."""

    first: Int64s
    second: Int64s
    values: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Axis:
    """What an index column counts: its name in errors, and its largest index."""

    name: str
    size: int = MOST_NEURONS

    def fault(self, field: bytes) -> str | None:
        """What is wrong with `field` as an index; None if nothing is."""
        if _INDEX.fullmatch(field) is None:
            return f"{self.name} {_shown(field)} is not a whole number"
        if not 1 <= int(field) <= self.size:
            return f"{self.name} {int(field)} is out of range: 1 to {self.size}"
        return None


def read_triples(path: PathLike, first: Axis, second: Axis) -> Triples:
    """The triples of a file, in range, finite and different; `FormatError` with file and line otherwise."""
    file = os.fspath(path)
    data = _text(file)
    if not data:
        raise FormatError("the file is empty", file=file)
    records = _parse(data)
    if records is None or not _sound(records, first.size, second.size):
        # Raises at the first bad line. Should it find none, what it read is as good.
        records = np.array(list(_careful(file, data, first, second)), dtype=_RECORD)
    return Triples(records["first"] - 1, records["second"] - 1, np.ascontiguousarray(records["value"]))


def read_indices(path: PathLike, axis: Axis) -> Int64s:
    """The 1-based indices of a file, one a line, as 0-based int64; an empty file is none."""
    file = os.fspath(path)
    numbers: dict[int, int] = {}
    for line, text in _lines(file, _text(file)):
        fault = axis.fault(text)
        if fault:
            raise FormatError(fault, file=file, line=line)
        if numbers.setdefault(int(text), line) != line:
            again = f"{axis.name} {int(text)} is there again: it is on line {numbers[int(text)]}"
            raise FormatError(again, file=file, line=line)
    return np.array(list(numbers), dtype=np.int64) - 1


def _text(file: str) -> bytes:
    """The content, lines ended as on Unix, without blank lines at its end."""
    data = read_bytes(file)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    whole = data.rstrip(b"\n")
    return data[: len(whole) + 1]


def _parse(data: bytes) -> npt.NDArray[np.void] | None:
    """All lines as records, values not checked; None if the text is unusual in any way."""
    if not data.endswith(b"\n") or data.startswith(b"\n") or data.translate(None, _ALLOWED):
        return None
    try:
        records = np.loadtxt(io.BytesIO(data), dtype=_RECORD, delimiter="\t", comments=None, ndmin=1)
    except ValueError:
        return None
    # Blank lines are skipped in silence.
    return records if records.size == data.count(b"\n") else None


def _sound(records: npt.NDArray[np.void], most_first: int, most_second: int) -> bool:
    first, second = records["first"], records["second"]
    if first.min() < 1 or second.min() < 1 or first.max() > most_first or second.max() > most_second:
        return False
    if not np.isfinite(records["value"]).all():
        return False
    keys = first * most_second + second
    steps = np.diff(keys)
    return bool((steps > 0).all() or (np.diff(np.sort(keys)) > 0).all())


def _careful(file: str, data: bytes, first: Axis, second: Axis) -> Iterator[tuple[int, int, float]]:
    seen: dict[tuple[int, int], int] = {}
    for line, text in _lines(file, data):
        fields = text.split(b"\t")
        fault = _fault(fields, first, second)
        if fault:
            raise FormatError(fault, file=file, line=line)
        key = (int(fields[0]), int(fields[1]))
        if seen.setdefault(key, line) != line:
            again = f"{first.name} {key[0]}, {second.name} {key[1]} is there again: it is on line {seen[key]}"
            raise FormatError(again, file=file, line=line)
        yield (*key, float(fields[2]))


def _lines(file: str, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and text of each line; the last must have an end, or the file may be cut inside a number."""
    # One by one: of a file that is not what it should be, the first line is mostly enough.
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.endswith(b"\n"):
            cut = f"the line {_shown(line)} has no newline at its end: is the file truncated?"
            raise FormatError(cut, file=file, line=number)
        yield number, line[:-1]


def _fault(fields: list[bytes], first: Axis, second: Axis) -> str | None:
    if len(fields) != 3:
        found = len(fields) if any(fields) else 0
        return f"a line has 3 fields between tabs ({first.name}, {second.name}, value), here {found}"
    return first.fault(fields[0]) or second.fault(fields[1]) or _value_fault(fields[2])


def _value_fault(field: bytes) -> str | None:
    if _NUMBER.fullmatch(field) is None:
        return f"value {_shown(field)} is not a number"
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.float32(float(field)))
    return None if finite else f"value {_shown(field)} is not a finite float32"


def _shown(field: bytes) -> str:
    text = field.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 40 else text[:37] + "...")
