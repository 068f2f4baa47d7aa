"""Reading ahead: what was read can be used before the rest is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import FsdError
from fsdcore.plan.readahead import ReadAhead


def test_an_item_is_there_before_the_last_is_read() -> None:
    goes_on = threading.Event()

    def source() -> Iterator[int]:
        yield 10
        assert goes_on.wait(20)
        yield 11

    ahead = ReadAhead(source(), 2, SYSTEM_CLOCK)
    assert ahead[0] == 10
    goes_on.set()
    assert [ahead[1], ahead[0], len(ahead)] == [11, 10, 2]
    ahead.close()


def test_an_error_is_raised_where_its_item_is_asked_for() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    ahead = ReadAhead(source(), 3, SYSTEM_CLOCK)
    assert ahead[0] == 1
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            _ = ahead[1]
    ahead.close()


def test_too_few_items_are_an_error_and_not_a_wait() -> None:
    ahead = ReadAhead(iter([1]), 2, SYSTEM_CLOCK)
    with pytest.raises(FsdError, match="2 items were to be read, there were 1"):
        _ = ahead[1]
    with pytest.raises(IndexError):
        _ = ahead[2]
    ahead.close()


def test_closing_stops_the_reading() -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(1_000_000):
            read.append(number)
            yield number

    ahead = ReadAhead(source(), 1_000_000, SYSTEM_CLOCK)
    assert ahead[0] == 0
    ahead.close()
    assert len(read) < 1_000_000
    ahead.close()
