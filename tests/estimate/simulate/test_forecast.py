"""The forecast's seconds against those of the simulator, where every answer is the usual one."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from fsdcore.errors import InputError
from fsdcore.estimate import Forecaster, Model, Setting, Target
from fsdcore.estimate.bill import bill, usage_of
from fsdcore.estimate.simulate import STEADY, Billing, Shape, Simulation, load_conditions, shape_work, work_of
from fsdcore.estimate.simulate.engine import simulate_once
from fsdcore.estimate.simulate.simulation import forecast_seconds
from fsdcore.estimate.simulate.synthetic import shape_forecaster
from tests.estimate.simulate.conftest import WorkMaker


def _shape(workers: int) -> Shape:
    return Shape(4096, 16, workers, 2000, [0.1], exchange=0.2)


@pytest.mark.parametrize("workers", [1, 4, 20])
@pytest.mark.parametrize(("batch_size", "in_flight"), [(2000, 1), (250, 1), (250, 4)])
@pytest.mark.parametrize("channel", ["queue", "object"])
def test_the_forecast_is_near_the_simulation(
    aws: Target, workers: int, batch_size: int, in_flight: int, channel: str
) -> None:
    kind = "serial" if workers == 1 else channel
    setting = Setting(kind, workers, 2 << 30, 4, batch_size, in_flight=in_flight)
    work = shape_work(_shape(workers), aws, setting)
    simulated = simulate_once(work, STEADY, 0)[0].wall_seconds
    # The forecast has receives gather fewer frames than come at once where nothing varies.
    tolerance = 0.02 if workers == 1 else 0.15 if channel == "object" else 0.25 if workers == 4 else 0.6
    assert forecast_seconds(work) == pytest.approx(simulated, rel=tolerance)


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_batches_in_flight_save_what_the_simulation_says(aws: Target, channel: str) -> None:
    saved = []
    for in_flight in (1, 4):
        setting = Setting(channel, 4, 2 << 30, 4, 250, in_flight=in_flight)
        work = shape_work(_shape(4), aws, setting)
        saved.append((forecast_seconds(work), simulate_once(work, STEADY, 0)[0].wall_seconds))
    forecast, simulated = saved[0][0] - saved[1][0], saved[0][1] - saved[1][1]
    assert simulated > 0
    assert forecast == pytest.approx(simulated, rel=0.35, abs=0.1 * saved[0][1])


def test_what_a_simulation_forecasts_is_the_forecast(aws: Target) -> None:
    shape = Shape(512, 5, 4, 1000, [0.2])
    setting = Setting("queue", 4, 2 << 30, 4, 300, in_flight=2)
    plan = shape_forecaster(shape, aws)
    assert forecast_seconds(work_of(plan, setting)) == pytest.approx(plan.forecast(setting).wall_seconds)


def test_many_batches_in_flight_are_forecast_from_some_of_them(aws: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that are left out take what those before them did."""
    shape = Shape(512, 5, 4, 4000, [0.2])
    for in_flight in (1, 3):
        setting = Setting("queue", 4, 2 << 30, 4, 100, in_flight=in_flight)
        plan: Forecaster = shape_forecaster(shape, aws)
        work = work_of(plan, setting)
        assert len(work.batches) == 40
        assert plan.forecast(setting).wall_seconds == pytest.approx(forecast_seconds(work), rel=0.01)


def test_the_parts_beyond_an_objects_front_take_their_time(aws: Target) -> None:
    shape, setting = Shape(4096, 5, 4, 10_000, [0.5]), Setting("object", 4, 4 << 30, 4, 10_000)
    forecast = shape_forecaster(shape, aws).forecast(setting)
    work = shape_work(shape, aws, setting)
    counted = simulate_once(work, STEADY, 0)[0]
    fixed = forecast.counters["gets"] - counted.totals()["gets"] + counted.vain
    assert fixed == pytest.approx(0, abs=0.1 * forecast.counters["gets"] + 100)
    assert forecast.counters["receives"] == forecast.counters["messages"]


def test_a_summary_says_what_the_time_depends_on(make_work: WorkMaker, billing: Billing) -> None:
    work = make_work("queue", 4)
    far = dataclasses.replace(
        work,
        model=_with_delivery(work.model, 3.0),
    )
    summary = Simulation(far, billing).summary([0])
    assert next(iter(summary.gains)) == "channel latency"
    assert summary.gains["channel latency"] > 5 * 3.0
    starts = Simulation(work, billing).summary([0]).gains
    assert starts["starts"] > work.model.compute.start_seconds


def _with_delivery(model: Model, seconds: float) -> Model:
    queue = msgspec.structs.replace(model.channels["queue"], delivery_seconds=seconds)
    return msgspec.structs.replace(model, channels={"queue": queue})


def test_percentiles_are_over_all_seeds(make_work: WorkMaker, billing: Billing) -> None:
    told: list[int] = []
    simulation = Simulation(make_work("queue", 4), billing, load_conditions("usual"))
    summary = simulation.summary(range(5, 15), told.append, explained=False)
    walls = sorted(run.wall_seconds for run in summary.runs)
    assert told == list(range(1, 11))
    assert (
        walls[0] < summary.wall_seconds["p50"] < summary.wall_seconds["p90"] <= summary.wall_seconds["p99"] <= walls[-1]
    )
    assert [run.seed for run in summary.runs] == list(range(5, 15))
    assert summary.gains == {}
    assert simulation.record(7).wall_seconds == summary.runs[2].wall_seconds
    assert summary.bill.total == summary.runs[0].dollars
    assert sum(summary.shares.values()) == pytest.approx(1.0, abs=0.2)


def test_the_bill_of_a_simulated_record_is_that_of_its_run(make_work: WorkMaker, billing: Billing) -> None:
    work = make_work("queue", 4)
    assert work.model.compute.billed_start_seconds > 0
    simulation = Simulation(work, billing, load_conditions("usual"))
    record = simulation.record(3)
    assert record.settings["memory_mb"] == billing.memory_bytes >> 20
    vcpus = billing.prices.tariff.compute.vcpus_of(billing.memory_bytes)
    found = bill(usage_of(record, billing.memory_bytes, vcpus), billing.prices)
    assert found == simulation.summary([3], explained=False).bill


def test_a_simulation_needs_a_seed(make_work: WorkMaker, billing: Billing) -> None:
    with pytest.raises(InputError, match="at least one seed"):
        Simulation(make_work("queue", 4), billing).summary([])
