"""Plans and partitions that are there already are not made again."""

from __future__ import annotations

from contextlib import closing

import msgspec
import numpy as np
import pytest

from fsd_local import LocalBackend
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import InputError, WireError
from fsdcore.estimate.bill import load_prices
from fsdcore.estimate.prepare import Sources, cheapest_channel, partition_for, target_for
from fsdcore.messages.segments import compress_segment, pack_arrays, pack_segments
from fsdcore.partition import make_partition
from fsdcore.testing import random_inputs, random_network


@pytest.mark.parametrize("planned", [False, True])
def test_a_partition_is_made_once(monkeypatch: pytest.MonkeyPatch, planned: bool) -> None:
    network, settings = random_network((20, 30, 20)), RunSettings(workers=3, method="random")
    with closing(LocalBackend()) as backend:
        if planned:
            Session(backend, settings).load(network)
        first = partition_for(backend.store, network, settings, 3)
        monkeypatch.setattr("fsdcore.estimate.prepare.make_partition", None)
        again = partition_for(backend.store, network, settings, 3)
    made = make_partition(network, 3, "random")
    for one, other, expected in zip(first.owners, again.owners, made.owners, strict=True):
        assert np.array_equal(one, expected)
        assert np.array_equal(other, expected)
    assert again.fingerprint == network.fingerprint


def test_the_prices_of_a_backend() -> None:
    with closing(LocalBackend()) as backend:
        assert target_for(backend, "local", Sources()).prices.name == "aws/us-east-1"
        given = target_for(backend, "local", Sources(prices="gcp/europe-west1"))
        assert given.prices.name == "gcp/europe-west1"
        with pytest.raises(InputError, match="has no option 'architecture'"):
            target_for(backend, "local", Sources(prices="gcp/europe-west1", options={"architecture": "arm64"}))


def test_the_region_of_a_backend_chooses_its_prices() -> None:
    class Regional(LocalBackend):
        region = "eu-west-1"

        def __init__(self) -> None:
            super().__init__()
            self.settings = self

    with closing(Regional()) as backend:
        assert target_for(backend, "aws", Sources()).prices.name == "aws/eu-west-1"


@pytest.mark.parametrize("cheap", ["queue", "object"])
def test_the_cheapest_channel_is_taken(monkeypatch: pytest.MonkeyPatch, cheap: str) -> None:
    network, inputs = random_network((40, 40, 40)), random_inputs(30, 40)
    split, settings = make_partition(network, 4, "random"), RunSettings(workers=4)
    prices = load_prices("aws/us-east-1")
    dear = {"sns_publish": 1.0} if cheap == "object" else {"s3_put": 1.0}
    changed = msgspec.structs.replace(prices, prices={**prices.prices, **dear})
    monkeypatch.setattr("fsdcore.estimate.prepare.load_prices", lambda name: changed)
    with closing(LocalBackend()) as backend:
        assert cheapest_channel(backend, network, split, inputs, settings) == cheap


def test_a_run_uses_the_partition_that_a_forecast_has_made(monkeypatch: pytest.MonkeyPatch) -> None:
    network, settings = random_network((20, 30, 20)), RunSettings(workers=3, method="random")
    with closing(LocalBackend()) as backend:
        kept = partition_for(backend.store, network, settings, 3)
        monkeypatch.setattr("fsdcore.client.session.make_partition", None)
        model = Session(backend, settings).load(network)
        assert all(map(np.array_equal, model.partition.owners, kept.owners))
        other = RunSettings(workers=3, method="random", seed=1)
        with pytest.raises(TypeError):
            Session(backend, other).load(network)


def test_a_damaged_partition_is_refused_by_name() -> None:
    network, settings = random_network((20, 30, 20)), RunSettings(workers=3, method="random")
    with closing(LocalBackend()) as backend:
        partition_for(backend.store, network, settings, 3)
        (key,) = backend.store.list("plans/")
        for damaged in (b"", b"FSDS" + bytes(20), pack_segments([compress_segment(pack_arrays({}))], {})):
            backend.store.put(key, damaged)
            with pytest.raises(WireError, match="/partition"):
                Session(backend, settings).load(network)
