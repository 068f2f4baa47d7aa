"""The clock that tests move by hand."""

from __future__ import annotations

import pytest

from fsdcore.clock import Deadline
from fsdcore.testing.clock import ManualClock


def test_it_moves_only_when_told() -> None:
    clock = ManualClock(5.0)
    deadline = Deadline.after(2.0, clock)
    assert (clock.now(), clock.wall(), deadline.passed()) == (5.0, 5.0, False)
    clock.advance(1.5)
    assert deadline.remaining() == 0.5
    clock.sleep(0.5)
    assert deadline.passed()


def test_listeners_hear_of_each_move_after_it() -> None:
    clock, heard = ManualClock(), list[float]()
    clock.on_advance(lambda: heard.append(clock.now()))
    clock.advance(1.0)
    clock.sleep(2.0)
    assert heard == [1.0, 3.0]


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="go back"):
        ManualClock().advance(-1.0)
