"""Forecast traffic against traffic that was counted."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_local import LocalBackend, LocalSettings
from fsdcore.client.session import Session
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import InputError
from fsdcore.estimate import Forecaster, Target
from fsdcore.estimate.activity import activity_of, assumed_activity, structure_of
from fsdcore.estimate.prepare import Sources, forecaster_for, rehearsed, setting_for, target_for
from fsdcore.estimate.profile import memory_bytes, profile_of
from fsdcore.estimate.traffic import count
from fsdcore.network.activations import TANH
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Network
from fsdcore.partition import Partition, make_partition, quality
from fsdcore.record.record import Record
from fsdcore.testing import random_inputs, random_network
from tests.shared_data import graph_challenge_data, official_network

_EXACT = ("messages", "frames", "publishes", "blocks_sent", "bytes_sent", "puts")
_TIGHT = LocalSettings(max_frame_bytes=400, max_publish_bytes=1000, max_publish_frames=3)


def _run(backend: LocalBackend, settings: RunSettings, network: Network, split: Partition, x: Any) -> Record:
    return Session(backend, settings).load(network, split).run(x).record


def _exact(backend: LocalBackend, settings: RunSettings, network: Network, split: Partition, x: Any) -> Forecaster:
    target = target_for(backend, "local", Sources())
    return rehearsed(backend.store, network, split, activity_of(network, x), x, settings, target)


@pytest.mark.parametrize("limits", [LocalSettings(), _TIGHT])
@pytest.mark.parametrize("channel", ["queue", "object"])
@pytest.mark.parametrize("workers", [2, 5])
def test_a_rehearsal_forecasts_every_message_publish_and_byte(
    limits: LocalSettings, channel: str, workers: int
) -> None:
    network, x = random_network((50, 60, 55, 60, 30)), random_inputs(70, 50)
    split = make_partition(network, workers, "random")
    settings = RunSettings(channel=channel, workers=workers, batch_size=32)
    with closing(LocalBackend(limits)) as backend:
        plan = _exact(backend, settings, network, split, x)
        forecast = plan.forecast(setting_for(plan, settings))
        record = _run(backend, settings, network, split, x)
    assert forecast.exact
    assert forecast.batches == record.batches == 3
    assert {name: forecast.counters[name] for name in _EXACT} == {name: record.counters[name] for name in _EXACT}


def test_samples_that_never_die_are_forecast_too() -> None:
    network, x = random_network((30, 40, 30), activations=(TANH,)), random_inputs(40, 30)
    split, settings = make_partition(network, 3, "block"), RunSettings(workers=3)
    with closing(LocalBackend()) as backend:
        plan = _exact(backend, settings, network, split, x)
        forecast = plan.forecast(setting_for(plan, settings))
        record = _run(backend, settings, network, split, x)
    assert {name: forecast.counters[name] for name in _EXACT} == {name: record.counters[name] for name in _EXACT}


@pytest.mark.parametrize("neurons", [1024, 4096])
@pytest.mark.parametrize("workers", [2, 8, 20])
def test_a_sample_forecasts_graph_challenge_traffic(neurons: int, workers: int) -> None:
    network, x = radixnet(neurons, 8), random_inputs(900, neurons, density=0.2)
    split, settings = make_partition(network, workers, "block"), RunSettings(workers=workers, batch_size=400)
    with closing(LocalBackend()) as backend:
        target = target_for(backend, "local", Sources())
        plan = forecaster_for(network, split, activity_of(network, x, 128), target)
        counters = plan.forecast(setting_for(plan, settings)).counters
        record = _run(backend, settings, network, split, x)
    assert counters["messages"] == record.counters["messages"]
    assert counters["puts"] == record.counters["puts"]
    assert counters["publishes"] == pytest.approx(record.counters["publishes"], rel=0.15)
    assert counters["bytes_sent"] == pytest.approx(record.counters["bytes_sent"], rel=0.15)


@pytest.mark.graph_challenge
@pytest.mark.parametrize("workers", [2, 8, 20])
def test_the_real_network_is_forecast_exactly(workers: int) -> None:
    from fsdcore.network.formats import load_inputs

    network, x = official_network(24), load_inputs(graph_challenge_data() / "images-10000.npz")[:500]
    split, settings = make_partition(network, workers, "block"), RunSettings(workers=workers)
    with closing(LocalBackend()) as backend:
        plan = _exact(backend, settings, network, split, x)
        counters = plan.forecast(setting_for(plan, settings)).counters
        record = _run(backend, settings, network, split, x)
    assert {name: counters[name] for name in _EXACT} == {name: record.counters[name] for name in _EXACT}


@given(st.integers(0, 1000), st.integers(60, 400), st.integers(1, 12), st.booleans())
def test_frames_are_packed_as_the_messenger_packs_them(seed: int, room: int, most: int, multi_target: bool) -> None:
    from fsdcore.contracts.channel import Outgoing
    from fsdcore.messages.frames import HEADER_BYTES
    from fsdcore.messages.packing import pack_in_order
    from fsdcore.record.record import BLOCK_BYTES

    network = random_network((20, 20, 20), seed=seed % 7)
    profile = profile_of(
        structure_of(network, make_partition(network, 4, "random", seed)), activity_of(network, random_inputs(9, 20))
    )
    limits = ChannelCapabilities(
        max_frame_bytes=room,
        max_publish_frames=most,
        max_publish_bytes=2 * room,
        frame_overhead_bytes=7,
        multi_target=multi_target,
    )
    counted = count(profile, limits)
    m = profile.messages
    for source in range(4):
        frames = []
        mine = np.flatnonzero(m.source == source)
        largest_first = mine[np.argsort(-m.rows[mine], kind="stable")]
        for target, body in zip(m.target[largest_first], m.body[largest_first], strict=True):
            left = int(body)
            while True:
                size = min(left, room - HEADER_BYTES)
                frames.append(Outgoing(int(target), bytes(size + HEADER_BYTES)))
                left -= size
                if left <= 0:
                    break
        packed = pack_in_order(frames, limits)
        sizes = [sum(limits.publish_size(len(frame.data)) for frame in publish) for publish in packed]
        assert counted.publishes[1, source] == len(packed)
        assert counted.frames[1, source] == len(frames)
        assert counted.bytes_sent[1, source] == sum(len(frame.data) for frame in frames)
        assert counted.blocks[1, source] == sum(-(-size // BLOCK_BYTES) for size in sizes)
    assert counted.frames_in.sum() == counted.frames.sum()
    assert counted.bytes_in.sum() == counted.bytes_sent.sum()


def test_the_structure_is_that_of_the_quality_report() -> None:
    network = random_network((40, 50, 45, 50, 20))
    split = make_partition(network, 5, "random")
    structure, report = structure_of(network, split), quality(network, split)
    assert structure.messages == report.pairs
    assert tuple(int(layer.message_rows.sum()) for layer in structure.layers) == report.rows_sent_per_layer
    assert tuple(structure.memory_bytes.tolist()) == report.memory_bytes


def test_given_densities_stand_in_for_an_input() -> None:
    network = random_network((200, 200, 200))
    split = make_partition(network, 4, "block")
    profiles = [
        profile_of(structure_of(network, split), assumed_activity(network, [density], 100)) for density in (0.05, 0.5)
    ]
    low, high = (profile.messages.nonzeros.sum() for profile in profiles)
    assert high == pytest.approx(10 * low, rel=0.1)
    assert profiles[0].messages.body.sum() < profiles[1].messages.body.sum()
    assert profiles[1].messages.nonzeros.sum() == pytest.approx(profiles[1].messages.rows.sum() * 100 * 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("densities", "samples", "message"),
    [([0.1, 0.2], 5, "2 densities"), ([1.5], 5, "between 0 and 1"), ([0.5], 0, "samples must be at least 1")],
)
def test_bad_densities_are_refused(densities: list[float], samples: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        assumed_activity(random_network((5, 5, 5)), densities, samples)


def test_messages_beyond_those_encoded_are_sized_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = radixnet(1024, 5), random_inputs(100, 1024, density=0.2)
    structure = structure_of(network, make_partition(network, 12, "block"))
    every = profile_of(structure, activity_of(network, x))
    monkeypatch.setattr("fsdcore.estimate.profile._ENCODED", 100)
    some = profile_of(structure, activity_of(network, x))
    assert every.messages.body.size > 400
    assert some.messages.body.sum() == pytest.approx(every.messages.body.sum(), rel=0.05)


def test_a_batch_of_another_size_scales(plans: dict[int, Forecaster], make_target: Any) -> None:
    network = random_network((100, 100, 100))
    profile = profile_of(
        structure_of(network, make_partition(network, 3, "block")), activity_of(network, random_inputs(50, 100))
    )
    twice = profile.scaled(100)
    assert twice.samples == 100
    assert twice.local.sum() == pytest.approx(2 * profile.local.sum())
    assert profile.messages.body.sum() < twice.messages.body.sum() < 2.01 * profile.messages.body.sum()
    assert memory_bytes(twice, 0).max() > memory_bytes(profile, 0).max()


def test_messages_grow_by_the_share_that_more_samples_add() -> None:
    network = radixnet(1024, 4)
    structure = structure_of(network, make_partition(network, 3, "block"))
    profile = profile_of(structure, activity_of(network, random_inputs(100, 1024, density=0.2)))
    assert 0 < profile.growth <= 1
    half = dataclasses.replace(profile, growth=0.5)
    sent = half.messages.body > 24
    body, twice = (each.messages.body[sent] for each in (half, half.scaled(200)))
    assert body.size > 0
    np.testing.assert_allclose(twice - 24, 1.5 * (body - 24), atol=1)
    again = half.scaled(200).scaled(400).messages.body
    np.testing.assert_allclose(again, half.scaled(400).messages.body, rtol=0.01)


def test_unknown_places_are_refused(make_target: Any) -> None:
    with closing(LocalBackend()) as backend:
        with pytest.raises(InputError, match="no model of backend 'mine': make one with fsd calibrate"):
            target_for(backend, "mine", Sources())
        with pytest.raises(InputError, match="does not say its region"):
            target_for(backend, "gcp", Sources())
        assert isinstance(target_for(backend, "gcp", Sources(prices="gcp/us-central1")), Target)


def test_a_plan_of_every_kind_of_rank() -> None:
    """Ranks that own nothing, in some layer or at all, are forecast like any other."""
    network, x = random_network((12, 12, 3)), random_inputs(6, 12)
    owners = tuple(np.zeros(width, np.int32) for width in network.widths)
    owners[1][6:] = 2
    split = Partition(3, owners, "custom", 0, network.fingerprint)
    settings = RunSettings(workers=3)
    with closing(LocalBackend()) as backend:
        plan = _exact(backend, settings, network, split, x)
        counters = plan.forecast(setting_for(plan, settings)).counters
        record = _run(backend, settings, network, split, x)
    assert {name: counters[name] for name in _EXACT} == {name: record.counters[name] for name in _EXACT}
