"""Runs in virtual time: what any of them must keep to."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.estimate.simulate import STEADY, Billing, Conditions, Limit, Simulation, Spread, Work, load_conditions
from fsdcore.estimate.simulate.engine import simulate_once
from fsdcore.estimate.simulate.ledger import Ledger
from tests.estimate.simulate.conftest import WorkMaker, with_limits

_USUAL, _ROUGH = load_conditions("usual"), load_conditions("rough")


def _ledger(work: Work, conditions: Conditions = STEADY, seed: int = 0) -> Ledger:
    return simulate_once(work, conditions, seed)[0]


def _wall(work: Work, conditions: Conditions = STEADY, seed: int = 0) -> float:
    return _ledger(work, conditions, seed).wall_seconds


@pytest.mark.parametrize("channel", ["queue", "object"])
@pytest.mark.parametrize("conditions", [STEADY, _USUAL, _ROUGH], ids=lambda each: each.name)
def test_a_seed_decides_every_byte_of_the_record(
    make_work: WorkMaker, billing: Billing, channel: str, conditions: Conditions
) -> None:
    work = make_work(channel, batch_size=50, in_flight=3)
    first, again, other = (Simulation(work, billing, conditions).record(seed).to_json() for seed in (7, 7, 8))
    assert first == again
    differ = first.replace(f"{7:016x}", "") != other.replace(f"{8:016x}", "")
    assert differ == (conditions is not STEADY)


def test_one_worker_takes_the_seconds_of_its_work(make_work: WorkMaker) -> None:
    work = make_work("serial", 1)
    compute, store = work.model.compute, work.model.store
    loads = work.batches[0].loads
    busy = float((loads.local + loads.remote).sum()) / compute.multiply_rate / work.share
    moved = float(work.plan_bytes[0] + loads.output_bytes[0]) / store.bytes_per_second
    ledger = _ledger(work)
    assert ledger.started[0] == pytest.approx(
        store.put_seconds
        + work.batches[0].input_bytes / store.bytes_per_second
        + compute.invoke_seconds
        + compute.start_seconds
    )
    assert ledger.ended[0] - ledger.started[0] == pytest.approx(
        busy + moved + 3 * store.get_seconds + store.put_seconds
    )


def test_two_workers_wait_for_what_travels(make_work: WorkMaker) -> None:
    """With nothing to compute and no bytes to move, a layer is a publish, its way, and a receive."""
    work = make_work("queue", 2, {"layers": 11, "densities": [0.0]})
    model, wire = work.model, work.model.channels["queue"]
    free = msgspec.structs.replace(model.compute, multiply_rate=1e30, codec_rate=1e30, message_seconds=0.0)
    wide = msgspec.structs.replace(wire, bytes_per_second=1e30)
    work = dataclasses.replace(work, model=msgspec.structs.replace(model, compute=free, channels={"queue": wide}))
    ledger = _ledger(work)
    hop = wire.send_seconds + wire.delivery_seconds + wire.receive_seconds
    plan = 3 * model.store.get_seconds + float(work.plan_bytes[1]) / model.store.bytes_per_second
    outputs = model.store.put_seconds + float(work.batches[0].loads.output_bytes[1]) / model.store.bytes_per_second
    assert ledger.ended[1] - ledger.started[1] == pytest.approx(plan + 10 * hop + outputs)


@pytest.mark.parametrize("part", ["compute", "store", "queue"])
def test_nothing_that_slows_down_makes_a_run_faster(make_work: WorkMaker, part: str) -> None:
    work = make_work("queue", 5, branching=2)
    model = work.model
    struct = model.channels["queue"] if part == "queue" else getattr(model, part)
    base = max(_ledger(work).ended)
    for name, value in msgspec.structs.asdict(struct).items():
        slower = msgspec.structs.replace(
            struct, **{name: value / 10 if name.endswith(("_rate", "_second")) else 10 * value}
        )
        whole: dict[str, Any] = {"channels": {"queue": slower}} if part == "queue" else {part: slower}
        changed = dataclasses.replace(work, model=msgspec.structs.replace(model, **whole))
        assert max(_ledger(changed).ended) >= base - 1e-9, name


@settings(deadline=None, max_examples=40)
@given(
    workers=st.integers(1, 9),
    batches=st.integers(1, 5),
    in_flight=st.integers(1, 4),
    branching=st.integers(1, 5),
    channel=st.sampled_from(["queue", "object"]),
    conditions=st.sampled_from([STEADY, _USUAL, _ROUGH]),
    background=st.booleans(),
    publishes=st.integers(1, 4),
)
def test_every_run_comes_to_its_end_with_all_it_was_sent(
    make_work: WorkMaker,
    workers: int,
    batches: int,
    in_flight: int,
    branching: int,
    channel: str,
    conditions: Conditions,
    background: bool,
    publishes: int,
) -> None:
    kind = "serial" if workers == 1 else channel
    shape = {"samples": 20 * batches, "layers": 4, "neurons": 64}
    work = make_work(kind, workers, shape, batch_size=20, in_flight=in_flight, branching=branching)
    if workers > 1 and channel == "queue":
        work = with_limits(work, background_receive=background, publishes_in_flight=publishes)
    ledger, _ = simulate_once(work, conditions, 3)
    totals = ledger.totals()
    assert max(ledger.ended) < ledger.wall_seconds < float("inf")
    assert all(start < end for start, end in zip(ledger.started, ledger.ended, strict=True))
    assert totals["invocations"] == workers
    assert totals["puts"] == workers + (workers + 1) * batches + (totals["publishes"] if kind == "object" else 0)
    frames = totals["frames"] + (workers - 1)
    doubles = conditions.duplicates > 0
    assert totals["receives"] <= frames * (2 if doubles else 1)
    assert totals["receives"] >= (frames / 10 if kind == "queue" else workers > 1)
    for table in ledger.seconds.values():
        assert min(map(min, table)) >= 0


def test_children_begin_after_their_parents(make_work: WorkMaker) -> None:
    ledger = _ledger(make_work("queue", 15, branching=2), _USUAL)
    for rank in range(1, 15):
        assert ledger.started[rank] > ledger.started[(rank - 1) // 2]
    flat = _ledger(make_work("queue", 15, branching=14))
    assert max(flat.started) < max(_ledger(make_work("queue", 15, branching=2)).started)


def test_batches_in_flight_hide_the_way_of_messages(make_work: WorkMaker) -> None:
    walls = [_wall(make_work("queue", batch_size=25, in_flight=n)) for n in (1, 2, 4)]
    assert walls[0] > 1.2 * walls[1]
    assert walls[1] > walls[2]


def test_warm_workers_start_sooner(make_work: WorkMaker) -> None:
    warm = msgspec.structs.replace(STEADY, name="warm", cold=0.0, warm_start_seconds=0.02)
    some = msgspec.structs.replace(warm, cold=0.5)
    work = make_work("queue", 40)
    assert max(_ledger(work, warm).started) < min(1.0, 0.2 * max(_ledger(work).started))
    assert max(_ledger(work, warm).started) < max(_ledger(work, some).started)


def test_a_straggler_holds_up_all(make_work: WorkMaker) -> None:
    work = make_work("queue", 8, {"samples": 2000, "neurons": 8192, "densities": [0.5]}, batch_size=2000)
    none = Conditions(name="none")
    all_slow = Conditions(name="slow", stragglers=1.0, straggler_factor=4.0)
    some_slow = Conditions(name="some", stragglers=0.3, straggler_factor=4.0)
    walls = [_wall(work, each) for each in (none, some_slow, all_slow)]
    assert walls[0] < walls[1] <= walls[2]
    waits = [sum(map(sum, _ledger(work, each).seconds["wait"])) for each in (none, some_slow)]
    assert waits[1] > waits[0]


def test_doubles_cost_receives_and_nothing_else(make_work: WorkMaker) -> None:
    work = with_limits(make_work("queue"), max_receive_frames=1)
    plain, doubled = (_ledger(work, Conditions(name="d", duplicates=share)).totals() for share in (0.0, 1.0))
    frames = plain["frames"]
    assert doubled["receives"] == plain["receives"] + frames
    assert {**doubled, "receives": 0, "acknowledges": 0, "lists": 0} == {
        **plain,
        "receives": 0,
        "acknowledges": 0,
        "lists": 0,
    }


def test_a_frame_that_is_lost_comes_again_after_its_time(make_work: WorkMaker) -> None:
    lost = Conditions(name="lost", redelivered=1.0, redelivery_seconds=7.0)
    work = make_work("queue", 2, {"layers": 4})
    assert 3 * 7.0 - 0.2 < _wall(work, lost) - _wall(work) < 3 * 7.0 + 0.2


@pytest.mark.parametrize(
    ("channel", "service", "calls"), [("queue", "send", "publishes"), ("object", "put", "publishes")]
)
def test_calls_beyond_the_rate_are_refused_and_repeated(
    make_work: WorkMaker, channel: str, service: str, calls: str
) -> None:
    work = make_work(channel)
    slow = Conditions(name="slow", limits={service: Limit(per_second=10.0, burst=5.0, backoff_seconds=0.05)})
    ledger, refused = simulate_once(work, slow, 0)
    assert refused > 0
    assert ledger.wall_seconds > (ledger.totals()[calls] - 5) / 10.0
    assert simulate_once(work, STEADY, 0)[1] == 0


def test_a_share_of_calls_is_refused(make_work: WorkMaker) -> None:
    work = make_work("queue", 16)
    flaky = Conditions(name="flaky", limits={"send": Limit(refused=0.5, backoff_seconds=0.01)})
    ledger, refused = simulate_once(work, flaky, 0)
    publishes = ledger.totals()["publishes"]
    assert 0.6 * publishes < refused < 1.5 * publishes
    assert ledger.wall_seconds > _wall(work)


def test_launching_is_limited_too(make_work: WorkMaker) -> None:
    work = make_work("queue", 64, branching=8)
    limited = Conditions(name="limited", limits={"invoke": Limit(per_second=10.0, burst=10.0, backoff_seconds=0.1)})
    begun = max(_ledger(work, limited).started)
    # Not much longer than the rate asks for: who waits does not hold up those that could go.
    assert (64 - 10) / 10.0 < begun < 4 * (64 - 10) / 10.0


def test_the_spread_of_answers_is_that_of_the_runs(make_work: WorkMaker) -> None:
    work = make_work("queue", 4)
    calm = Conditions(name="calm", latency={"delivery": Spread(sigma=0.01)})
    wild = Conditions(name="wild", latency={"delivery": Spread(sigma=1.0, tail=0.1, tail_factor=10.0)})
    spans = []
    for conditions in (calm, wild):
        walls = [_wall(work, conditions, seed) for seed in range(10)]
        spans.append(max(walls) - min(walls))
    assert spans[1] > 5 * spans[0]


def test_receives_bring_what_is_there(make_work: WorkMaker) -> None:
    work = make_work("queue", 16)
    totals = [_ledger(with_limits(work, max_receive_frames=most)).totals()["receives"] for most in (1, 3, 10)]
    assert totals[0] > totals[1] > totals[2]
    frames = _ledger(work).totals()["frames"] + 15
    assert totals[0] == frames


def test_parts_beyond_the_front_of_an_object_are_read_once_more(make_work: WorkMaker) -> None:
    small, large = (
        make_work("object", 4, {"samples": samples, "densities": [0.9], "exchange": 1.0}, batch_size=samples)
        for samples in (10, 10_000)
    )
    for work, more in ((small, 1), (large, 2)):
        ledger = _ledger(work)
        counted = ledger.totals()
        fixed = int(work.reads.sum()) + ledger.vain + 3 + 1 + 4
        fetched = counted["gets"] - fixed - (ledger.client["gets"] - 5)
        assert counted["frames"] <= fetched <= more * counted["frames"]
        assert (fetched > counted["frames"]) == (more == 2)


def test_limits_of_a_channel_are_those_of_its_capabilities(make_work: WorkMaker) -> None:
    work = make_work("queue", 8)
    assert isinstance(work.limits, ChannelCapabilities)
    pooled = with_limits(work, publishes_in_flight=8)
    assert max(_ledger(pooled).ended) <= max(_ledger(work).ended)
