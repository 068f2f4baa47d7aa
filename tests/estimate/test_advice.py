"""Advice: the same as looking at everything, and in words."""

from __future__ import annotations

import dataclasses
import random

import msgspec
import pytest

from fsdcore.errors import InputError
from fsdcore.estimate import Forecast, Forecaster, Model, Setting
from fsdcore.estimate.activity import Activity
from fsdcore.estimate.advice import Choices, Goal, advise, best_of, pareto
from fsdcore.estimate.prepare import forecaster_for
from fsdcore.network.network import Network
from fsdcore.partition import make_partition
from tests.estimate.conftest import TargetMaker

_MIB = 1 << 20


def _points(forecasts: tuple[Forecast, ...]) -> list[tuple[float, float]]:
    return [(each.wall_seconds, each.dollars) for each in forecasts]


def _choices(plans: dict[int, Forecaster], rng: random.Random) -> Choices:
    memory = [128, 256, 512, 1024, 1769, 3008, 4096]
    return Choices(
        plans={n: plans[n] for n in sorted(rng.sample(sorted(plans), rng.randint(1, len(plans))))},
        channels=rng.sample(["queue", "object"], rng.randint(1, 2)),
        memory_bytes=[size * _MIB for size in sorted(rng.sample(memory, rng.randint(2, 5)))],
        batch_sizes=rng.sample([10, 50, 100, 200], rng.randint(1, 2)),
        branching=rng.sample([1, 2, 4], rng.randint(1, 2)),
        replicas=rng.sample([1, 2, 5], rng.randint(1, 3)),
    )


@pytest.mark.parametrize("seed", range(50))
def test_advice_is_that_of_looking_at_everything(
    network: Network, activity: Activity, make_target: TargetMaker, seed: int
) -> None:
    rng = random.Random(seed)
    prices = rng.choice(["aws/us-east-1", "gcp/us-central1"])
    target = make_target(prices.partition("/")[0], prices)
    # Heavy enough in some settings that computing, not waiting, decides.
    slow = dataclasses.replace(target, model=_slower(target.model, rng.choice([1.0, 1e-3, 1e-5])))
    plans = {n: forecaster_for(network, make_partition(network, n, "block"), activity, slow) for n in (1, 2, 4, 7)}
    choices = _choices(plans, rng)
    everything = [choices.plans[setting.workers].forecast(setting) for setting in choices.settings()]
    fitting = [forecast for forecast in everything if forecast.fits]
    if not fitting:
        with pytest.raises(InputError, match="no choice fits"):
            advise(choices)
        return
    seconds = sorted(each.wall_seconds for each in fitting)
    dollars = sorted(each.dollars for each in fitting)
    deadline, budget = rng.choice(seconds), rng.choice(dollars)
    for goal in (Goal(), Goal(deadline=deadline), Goal(budget=budget), Goal(deadline=deadline, budget=budget)):
        advice = advise(choices, goal)
        assert _points(advice.front) == _points(pareto(fitting))
        expected = best_of(fitting, goal)
        if expected is None:
            assert advice.best is None
        else:
            assert advice.best is not None
            assert goal.rank(advice.best) == goal.rank(expected)
        assert advice.looked_at <= len(everything)


def _slower(model: Model, factor: float) -> Model:
    compute = msgspec.structs.replace(model.compute, multiply_rate=model.compute.multiply_rate * factor)
    return msgspec.structs.replace(model, compute=compute)


def _default(plans: dict[int, Forecaster]) -> Choices:
    return Choices(plans, ("queue", "object"), [512 * _MIB, 1769 * _MIB], [50, 200])


def test_the_serial_variant_is_advised_where_it_is_best(plans: dict[int, Forecaster]) -> None:
    advice = advise(_default(plans), Goal(deadline=60))
    assert advice.best is not None
    assert advice.best.channel == "serial"
    assert str(advice).startswith("Run it serial, in one worker of 512 MiB")
    assert "because the " in str(advice)


def test_a_goal_out_of_reach_is_said(plans: dict[int, Forecaster]) -> None:
    advice = advise(_default(plans), Goal(deadline=0.001))
    assert advice.best is None
    assert str(advice).startswith("Nothing meets a deadline of 0.001 s: the fastest takes ")


def test_looking_at_less_than_everything(plans: dict[int, Forecaster]) -> None:
    choices = Choices(plans, ("queue", "object"), [n * _MIB for n in (1769, 3008, 4096, 8192)], [50, 200])
    assert advise(choices).looked_at <= len(list(choices.settings())) / 4


def test_what_does_not_fit_is_not_advised(plans: dict[int, Forecaster]) -> None:
    with pytest.raises(InputError, match="no choice fits"):
        advise(Choices(plans, ("queue",), [16 * _MIB], [200]))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_goals_are_checked(value: float) -> None:
    with pytest.raises(InputError, match="must be above 0"):
        Goal(deadline=value)


def test_groups_share_the_samples(plans: dict[int, Forecaster]) -> None:
    one = plans[2].forecast(Setting("queue", 2, 1 << 31, 2, 50))
    four = plans[2].forecast(Setting("queue", 2, 1 << 31, 2, 50, replicas=4))
    assert (one.batches, four.batches) == (4, 4)
    assert four.wall_seconds < one.wall_seconds
    assert four.counters["messages"] == one.counters["messages"]
    assert four.counters["invocations"] == 4 * one.counters["invocations"]
