"""The clock of tests: time passes when all wait, and only then."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from fsdcore.clock import Deadline, Event
from fsdcore.testing.clock import VirtualClock


def test_alone_it_moves_only_when_told() -> None:
    clock = VirtualClock(5.0)
    deadline = Deadline.after(2.0, clock)
    assert (clock.now(), clock.wall(), deadline.passed()) == (5.0, 5.0, False)
    clock.sleep(1.5)
    assert deadline.remaining() == 0.5
    clock.sleep(0.5)
    assert deadline.passed()


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="go back"):
        VirtualClock().sleep(-1.0)


def test_sleeps_of_several_threads_pass_at_once_and_in_order() -> None:
    clock, woke = VirtualClock(), list[tuple[float, float]]()

    def sleeps(seconds: float) -> None:
        for _ in range(2):
            clock.sleep(seconds)
            woke.append((seconds, clock.now()))

    threads = [clock.start(partial(sleeps, seconds), "sleeps") for seconds in (50.0, 20.0, 30.0)]
    for thread in threads:
        thread.join()
    assert woke == [(20.0, 20.0), (30.0, 30.0), (20.0, 40.0), (50.0, 50.0), (30.0, 60.0), (50.0, 100.0)]
    assert not any(thread.is_alive() for thread in threads)


def test_who_is_notified_runs_before_time_passes() -> None:
    clock, seen = VirtualClock(), list[float]()
    told = [Event(clock) for _ in range(100)]

    def passes_on(number: int) -> None:
        told[number].wait(60.0)
        seen.append(clock.now())
        told[number + 1].set()
        clock.sleep(1.0)

    threads = [clock.start(partial(passes_on, number), "passes") for number in range(99)]
    clock.sleep(1.0)
    told[0].set()
    for thread in threads:
        thread.join()
    assert (seen, clock.now()) == ([1.0] * 99, 2.0)


def test_a_wait_tells_whether_it_was_notified_or_its_time_had_come() -> None:
    clock, answers = VirtualClock(), list[tuple[bool, float]]()
    condition = clock.condition()

    def waits() -> None:
        for _ in range(2):
            with condition:
                answers.append((condition.wait(10.0), clock.now()))

    thread = clock.start(waits, "waits")
    clock.sleep(4.0)
    with condition:
        condition.notify_all()
    thread.join()
    assert answers == [(True, 4.0), (False, 14.0)]


def test_who_wants_a_lock_whose_holder_sleeps_waits_in_virtual_time() -> None:
    clock, entered = VirtualClock(), list[float]()
    lock = clock.condition()

    def holds() -> None:
        with lock:
            entered.append(clock.now())
            clock.sleep(5.0)

    for thread in [clock.start(holds, "holds") for _ in range(3)]:
        thread.join()
    assert entered == [0.0, 5.0, 10.0]


def test_a_join_may_end_before_the_thread() -> None:
    clock = VirtualClock()
    thread = clock.start(lambda: clock.sleep(10.0), "sleeps")
    thread.join(3.0)
    assert (thread.is_alive(), clock.now()) == (True, 3.0)
    thread.join()
    assert (thread.is_alive(), clock.now()) == (False, 10.0)


def test_a_wait_that_nothing_can_end_is_an_error() -> None:
    clock, ever = VirtualClock(), threading.Event()
    with pytest.raises(RuntimeError, match="all threads wait for each other"):
        Event(clock).wait()
    thread = clock.start(ever.set, "goes on")
    thread.join()
    assert ever.is_set()


def test_a_thread_that_it_does_not_know_may_notify_but_not_wait() -> None:
    clock, told, refused = VirtualClock(), list[bool](), list[str]()
    event = Event(clock)

    def stranger() -> None:
        event.set()
        try:
            clock.sleep(1.0)
        except RuntimeError as error:
            refused.append(str(error))

    waits = clock.start(lambda: told.append(event.wait(60.0)), "waits")
    thread = threading.Thread(target=stranger)
    thread.start()
    thread.join()
    waits.join()
    assert (told, clock.now()) == ([True], 0.0)
    assert refused == ["a thread waits by a virtual clock that has not started it"]
