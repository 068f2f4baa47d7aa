"""Turns: one thread at a time, in the order they came, and nothing that depends on it but speed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from fsd_local import LocalBackend
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.channel import Address, Channel
from fsdcore.errors import DeadlineError
from fsdcore.testing import random_inputs, random_network
from fsdcore.testing.clock import VirtualClock
from fsdcore.turns import Turns, standing_aside, turns_of_this_thread
from tests.conftest import SessionMaker

SECONDS = 20


def in_threads(*works: Callable[[], None]) -> None:
    """Run each in a thread, to its end."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


def most_at_once(turns: Turns) -> int:
    """How many of five threads, which all stand aside again and again, had their turn at once."""
    inside, most = [0], [0]

    def work() -> None:
        with turns.taken():
            for _ in range(200):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1
                with standing_aside():
                    pass

    in_threads(*[work] * 5)
    return most[0]


def test_one_thread_at_a_time_has_its_turn() -> None:
    assert most_at_once(Turns(SYSTEM_CLOCK, SECONDS)) == 1


def test_who_stands_aside_goes_on_after_those_that_waited() -> None:
    turns, order, there = Turns(SYSTEM_CLOCK, SECONDS), list[str](), threading.Barrier(2)

    def first() -> None:
        with turns.taken():
            there.wait(SECONDS)
            with standing_aside():
                gone.wait(SECONDS)
            order.append("first")

    def second() -> None:
        there.wait(SECONDS)
        with turns.taken():
            gone.set()
            order.append("second")

    gone = threading.Event()
    in_threads(first, second)
    assert order == ["second", "first"]


def test_standing_aside_within_standing_aside_ends_with_the_outer_one() -> None:
    clock, went = VirtualClock(), list[float]()
    turns = Turns(clock, SECONDS)

    def other() -> None:
        with turns.taken():
            went.append(clock.now())

    with turns.taken():
        with standing_aside():
            with standing_aside():
                pass
            clock.start(other, "other")
            clock.sleep(1.0)
        last = clock.start(other, "other")
        clock.sleep(1.0)
    last.join()
    assert went == [0.0, 2.0]


def test_a_thread_that_hangs_keeps_nobody_for_long_and_loses_no_turn() -> None:
    clock, went = VirtualClock(), list[float]()
    turns = Turns(clock, longest_seconds=1.0)

    def hangs() -> None:
        with turns.taken():
            clock.sleep(SECONDS)

    def other() -> None:
        with turns.taken():
            went.append(clock.now())
            with standing_aside():
                pass
            went.append(clock.now())

    for thread in [clock.start(work, "turns") for work in (hangs, other, other)]:
        thread.join()
    assert went == [1.0, 1.0, 2.0, 2.0]
    # Whoever went on without a turn has given none back.
    with turns.taken():
        clock.start(other, "other")
        clock.sleep(0.5)
        assert len(went) == 4


def test_a_turn_ends_with_what_the_block_raises() -> None:
    turns = Turns(SYSTEM_CLOCK, SECONDS)
    for _ in range(2):
        with pytest.raises(KeyError), turns.taken():
            raise KeyError("lost")
    with pytest.raises(KeyError), turns.taken(), standing_aside():
        raise KeyError("lost")
    with turns.taken():
        pass


def test_threads_without_turns_never_wait() -> None:
    with standing_aside(), turns_of_this_thread()():
        pass
    turns = Turns(SYSTEM_CLOCK, SECONDS)
    with turns.taken(), standing_aside(worth=False):
        made = turns_of_this_thread()
    with made(), standing_aside():
        pass


def test_a_worker_that_hangs_in_its_turn_does_not_keep_others_from_their_deadlines(
    make_session: SessionMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_channel = LocalBackend.open_channel

    clock = VirtualClock()

    def opened(backend: LocalBackend, kind: str, address: Address) -> Channel:
        channel = open_channel(backend, kind, address)
        if address.rank == 1:
            # Its sends return when nobody waits for them any more.
            monkeypatch.setattr(channel, "send", lambda frames: clock.sleep(4.0))
        return channel

    monkeypatch.setattr(LocalBackend, "open_channel", opened)
    session = make_session(clock=clock, workers=3, deadline_seconds=0.5, run_seconds=15.0)
    with pytest.raises(DeadlineError, match="nothing came from rank 1"):
        session.load(random_network((12, 12, 12))).run(random_inputs(4, 12))
