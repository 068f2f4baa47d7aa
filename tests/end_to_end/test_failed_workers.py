"""A worker that fails: all others hear of it, and end soon, as their processes tell."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from fsdcore.client.session import Model
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import FsdError
from fsdcore.testing import random_inputs, random_network
from tests.end_to_end.sites import Site

pytestmark = pytest.mark.slow

_HEARD = {"local": 2.0, "aws": 5.0, "gcp": 5.0}
_CHANNELS = ("queue", "sqs", "object")
_WORKERS = 4
_FAILING = 2
_PATIENCE = 60.0


@contextmanager
def _doomed(site: Site, channel: str) -> Iterator[Model]:
    """A model whose rank 2 finds its weights damaged, long before the run's other deadlines."""
    # A network of its own for each: what workers have read of a plan, they keep.
    network = random_network((32, 48, 48, 32), density=0.2, seed=700 + _CHANNELS.index(channel))
    with site.session(workers=_WORKERS, channel=channel, deadline_seconds=_PATIENCE) as session:
        model = session.load(network)
        session.backend.store.put(f"plans/{model.plan}/{_FAILING}", b"damaged")
        yield model


def _ended(site: Site) -> tuple[float, float]:
    """When the first worker ended, and when the last."""
    most, first, deadline = 0, None, Deadline.after(_PATIENCE, SYSTEM_CLOCK)
    while (busy := site.busy()) or first is None:
        most = max(most, busy)
        if first is None and busy < most:
            first = SYSTEM_CLOCK.now()
        assert not deadline.passed(), f"{busy} workers live on"
        SYSTEM_CLOCK.sleep(0.02)
    return first, SYSTEM_CLOCK.now()


@pytest.mark.parametrize("channel", _CHANNELS)
def test_after_one_worker_has_failed_all_end_soon(site: Site, channel: str) -> None:
    if channel not in site.channels:
        pytest.skip(f"{site.name} has no channel {channel}")
    with _doomed(site, channel) as model, ThreadPoolExecutor() as pool:
        done = pool.submit(model.run, random_inputs(4000, 32))
        first, last = _ended(site)
        with pytest.raises(FsdError) as caught:
            done.result(_PATIENCE)
    assert caught.value.rank == _FAILING, caught.value
    assert last - first < _HEARD[site.name]
