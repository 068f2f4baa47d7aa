"""Seconds: the laws that any model must keep."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fsd_local import LocalBackend
from fsdcore.contracts.compute import children
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import InputError
from fsdcore.estimate import Forecaster, Model, Setting, load_model, model_names
from fsdcore.estimate.activity import Activity
from fsdcore.estimate.calibrate import calibrate
from fsdcore.estimate.prepare import forecaster_for
from fsdcore.estimate.speeds import model_text
from fsdcore.estimate.timing import Loads, timeline
from fsdcore.network.network import Network
from fsdcore.partition import make_partition
from tests.estimate.conftest import TargetMaker

_GIB = 1 << 30


def _setting(**changes: Any) -> Setting:
    return Setting("queue", 4, _GIB, 2, 50)._replace(**changes)


def _seconds(model: Model, network: Network, activity: Activity, make_target: TargetMaker, **changes: Any) -> float:
    target = dataclasses.replace(make_target(), model=model)
    plan = forecaster_for(network, make_partition(network, 4, "block"), activity, target)
    return plan.forecast(_setting(**changes)).wall_seconds


@pytest.mark.parametrize("part", ["compute", "store", "queue"])
def test_nothing_that_slows_down_makes_a_run_faster(
    network: Network, activity: Activity, make_target: TargetMaker, part: str
) -> None:
    model = load_model("aws")
    struct = model.channels["queue"] if part == "queue" else getattr(model, part)
    base = _seconds(model, network, activity, make_target)
    for name, value in msgspec.structs.asdict(struct).items():
        faster_if_more = name.endswith(("_rate", "_per_second", "gathering"))
        slower = msgspec.structs.replace(struct, **{name: value / 10 if faster_if_more else value * 10 + 0.001})
        whole = {"channels": {"queue": slower}} if part == "queue" else {part: slower}
        assert _seconds(msgspec.structs.replace(model, **whole), network, activity, make_target) >= base, name


def test_phases_and_waits_add_up_to_the_workers_seconds(plans: dict[int, Forecaster]) -> None:
    timed = plans[7].timeline(_setting(workers=7))
    assert sum(timed.phases.values()) == pytest.approx(timed.worker_seconds.sum())
    assert timed.wait.sum() == pytest.approx(timed.phases["wait"])
    assert timed.worker_seconds.max() < timed.wall_seconds


def test_many_equal_batches_are_each_as_long_as_the_next(plans: dict[int, Forecaster]) -> None:
    seconds = [plans[4].timeline(_setting(batch_size=size)).wall_seconds for size in (40, 20, 10)]
    assert seconds[0] < seconds[1] < seconds[2]
    network_batches = plans[4].batches(_setting(batch_size=30))
    assert network_batches == [30] * 6 + [20]


def _even(workers: int, **changes: Any) -> Loads:
    none = np.zeros((3, workers))
    given = dict.fromkeys([field.name for field in dataclasses.fields(Loads)], none)
    return Loads(**{**given, "edges": None, "output_bytes": none[0], **changes})


def test_a_tree_starts_each_rank_after_its_parent() -> None:
    model, none = load_model("aws"), np.zeros(15)
    timed = timeline([_even(15)], model, model.channels["queue"], 2, 1.0, none)
    compute = model.compute
    # Ranks 7 to 14 are three levels below rank 0.
    assert len(children(0, 15, 2)) == 2
    assert timed.wall_seconds >= 4 * compute.start_seconds + 4 * compute.invoke_seconds
    flat = timeline([_even(15)], model, model.channels["queue"], 14, 1.0, none)
    assert flat.wall_seconds < timed.wall_seconds


def test_a_straggler_holds_up_those_that_wait_for_it() -> None:
    model, work = load_model("aws"), np.zeros((3, 3))
    work[0, 2] = 1e10
    edges = tuple((np.array([2]), np.array([1])) for _ in range(3))
    loads = _even(3, local=work, messages=np.ones((3, 3)), edges=edges)
    timed = timeline([loads], model, model.channels["queue"], 4, 1.0, np.zeros(3))
    straggling = 1e10 / model.compute.multiply_rate
    assert timed.wait[1] > 0.9 * straggling
    # Rank 0 hears nothing from it but its record, at the end.
    assert timed.wait[0] > 0.9 * straggling


def test_less_memory_is_a_slower_worker(plans: dict[int, Forecaster]) -> None:
    small, large, larger = (plans[2].forecast(_setting(workers=2, memory_bytes=n << 20)) for n in (512, 1800, 4096))
    assert small.wall_seconds > large.wall_seconds
    assert large.wall_seconds == larger.wall_seconds
    assert large.dollars < larger.dollars


@pytest.mark.parametrize("name", model_names())
def test_models_say_where_they_come_from_and_survive_writing(tmp_path: Path, name: str) -> None:
    model = load_model(name)
    assert model.date
    assert {"compute", "store", "channels"} <= set(model.sources)
    path = tmp_path / "again.toml"
    path.write_text(model_text(model))
    again = load_model(str(path))
    assert again.sources == model.sources
    assert again.compute.multiply_rate == pytest.approx(model.compute.multiply_rate, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("multiply_rate = ", "multiply_rate = -"), "compute.multiply_rate must be above 0, not -"),
        (("send_seconds = ", "send_seconds = nan #"), "channels.object.send_seconds must be 0 or more, not nan"),
        (("[store]", "[shop]"), "Object contains unknown field `shop`"),
        (("codec_rate = ", "codec_rate = 'x' #"), "Expected `float`, got `str`"),
        (("[compute]", "[compute"), "own.toml: "),
    ],
)
def test_a_bad_model_is_refused_by_name(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(model_text(load_model("paper")).replace(*change))
    with pytest.raises(InputError) as caught:
        load_model(str(path))
    assert message in str(caught.value)
    assert str(caught.value).startswith("own.toml: ")
    assert "\n" not in str(caught.value)


def test_unknown_models_and_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no model 'awz'; did you mean 'aws'"):
        load_model("awz")
    with pytest.raises(InputError, match="cannot be read"):
        load_model(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match="model gcp has no channel 'sqs'"):
        load_model("gcp").channel("sqs")


def test_calibration_of_this_machine(tmp_path: Path) -> None:
    backend = LocalBackend()
    model = calibrate(backend, RunSettings(workers=2))
    assert set(model.channels) == {"queue", "object"}
    assert 1e7 < model.compute.multiply_rate < 1e12
    assert 2e7 < model.compute.runtime_bytes < 2e8
    assert backend.store.list("runs/") == []
    path = tmp_path / "model.toml"
    path.write_text(model_text(model))
    assert load_model(str(path)).name == model.name
    backend.close()
