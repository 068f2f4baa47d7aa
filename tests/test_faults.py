"""The words of faults: which calls they mean, and how often they happen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.errors import ConfigError
from fsdcore.faults import AnyFault, Crash, Delay, Disconnect, Fault, Faults, Refuse

CALL = "s3:PutObject"


def met(faults: Faults, calls: int) -> list[Fault | None]:
    return [faults.meet(Fault, CALL) for _ in range(calls)]


def standing(*given: Fault) -> Faults:
    faults = Faults(Refuse, Delay, Disconnect)
    faults.set(*given)
    return faults


@pytest.mark.parametrize(
    ("fault", "means"),
    [
        (Refuse(), True),
        (Refuse(CALL), True),
        (Refuse("s3:*"), True),
        (Refuse("sqs:* *:PutObject"), True),
        (Refuse("s3:putobject"), False),
        (Refuse("s3:Put"), False),
        (Refuse(about="runs/"), True),
        (Refuse(about="plans/"), False),
        (Refuse(by="worker"), True),
        (Refuse(by="client"), False),
        (Refuse(by=0), False),
    ],
)
def test_a_fault_means_calls_by_name_by_what_they_are_about_and_by_caller(fault: Fault, means: bool) -> None:
    assert fault.means(CALL, "bucket/runs/1", "worker") is means


@given(st.integers(0, 5), st.integers(1, 5))
def test_some_pass_and_then_so_many_go_wrong(skip: int, times: int) -> None:
    fault = Refuse(skip=skip, times=times)
    assert met(standing(fault), 12) == [None] * skip + [fault] * times + [None] * (12 - skip - times)


def test_a_share_is_drawn_from_the_seed() -> None:
    seen = [met(standing(Refuse(share=0.3, seed=seed)), 1_000) for seed in (1, 1, 2)]
    assert seen[0] == seen[1] != seen[2]
    assert all(200 < sum(fault is not None for fault in one) < 400 for one in seen)


def test_faults_of_one_seed_are_drawn_apart() -> None:
    faults = standing(Refuse(share=0.5), Delay(share=0.5))
    assert {type(fault) for fault in met(faults, 100)} == {Refuse, Delay, type(None)}


def test_the_first_that_is_due_is_met_and_each_is_counted() -> None:
    first, second = Refuse(times=1), Disconnect(skip=1, times=1)
    faults = standing(first, second)
    assert met(faults, 4) == [first, None, second, None]
    assert faults.made == 2
    faults.set()
    assert (met(faults, 1), faults.made) == ([None], 0)


def test_only_the_kind_asked_for_is_met() -> None:
    faults = standing(Refuse(), Delay(seconds=1.0))
    assert faults.meet(Delay, CALL) == Delay(seconds=1.0)


def test_what_is_to_happen_once_does_so_among_threads() -> None:
    faults = standing(Refuse(skip=40, times=1))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: faults.meet(Refuse, CALL), range(80)))
    assert sum(fault is not None for fault in found) == 1


def test_a_fault_that_cannot_be_made_is_refused_and_changes_nothing() -> None:
    faults = standing(Refuse())
    with pytest.raises(ConfigError, match="the fault Crash cannot be made here; there are: Refuse, Delay, Disconnect"):
        faults.set(Crash())
    assert met(faults, 1) == [Refuse()]


def test_faults_travel_as_json() -> None:
    faults = [Refuse("s3:*", error="SlowDown", status=503), Crash(by="worker", times=1), Delay(seconds=0.5)]
    assert msgspec.json.decode(msgspec.json.encode(faults), type=list[AnyFault]) == faults
    with pytest.raises(msgspec.ValidationError, match="unknown field `second`"):
        msgspec.json.decode(b'[{"type": "Delay", "second": 1}]', type=list[AnyFault])
