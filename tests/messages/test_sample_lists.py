"""Messages that name their samples by those of the message before: right whatever the service or a worker does."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from fsd_local import LocalSettings
from fsdcore.errors import ChannelError
from fsdcore.faults import Delay, Drop, Duplicate, Fault, Refuse, Reorder
from fsdcore.messages.frames import Body
from fsdcore.messages.rows import Message, open_rows
from fsdcore.messages.sample_lists import Columns
from fsdcore.network.activations import clipped_relu
from fsdcore.network.network import Layer, Network
from fsdcore.testing import random_inputs
from fsdcore.worker import loop
from tests.conftest import SessionMaker

QUICK = LocalSettings(visibility_timeout=0.1)


class Opened:
    """Messages that were opened, and those that could not have been without the one before."""

    def __init__(self) -> None:
        self.all = self.need_one_before = 0

    def open(self, body: Body, rows: int, samples: int, before: Columns | None = None) -> Message:
        message = open_rows(body, rows, samples, before)
        self.all += 1
        self.need_one_before += before is not None and message.columns is before
        return message


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    counted = Opened()
    monkeypatch.setattr(loop, "open_rows", counted.open)
    return counted


@pytest.fixture(scope="module")
def network() -> Network:
    """Samples that have nothing in them stay so, and no other dies."""
    rng = np.random.default_rng(0)
    return Network(
        Layer(sp.csr_array(rng.random((48, 48), np.float32) * (rng.random((48, 48)) < 0.3)), 0.0, clipped_relu(32))
        for _ in range(8)
    )


@pytest.mark.parametrize("channel", ["queue", "object"])
@pytest.mark.parametrize(
    "faults",
    [(), (Duplicate(share=0.5), Reorder(seed=1), Delay(receives=2, share=0.3)), (Drop(share=0.2), Reorder(seed=2))],
    ids=lambda faults: "+".join(type(fault).__name__ for fault in faults) or "none",
)
@pytest.mark.parametrize("in_flight", [1, 3])
def test_it_survives_redelivery(
    make_session: SessionMaker,
    network: Network,
    opened: Opened,
    channel: str,
    faults: tuple[Fault, ...],
    in_flight: int,
) -> None:
    x = random_inputs(90, 48)
    expected = make_session(workers=1).load(network).run(x).outputs
    model = make_session(*faults, workers=4, channel=channel, in_flight=in_flight, settings=QUICK).load(network)
    found = model.run(x, batch_size=30).outputs
    np.testing.assert_allclose(found.toarray(), expected.toarray(), rtol=1e-4, atol=1e-5)
    assert opened.need_one_before > opened.all / 4


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_a_run_after_one_that_died_begins_anew(
    make_session: SessionMaker, network: Network, opened: Opened, channel: str
) -> None:
    x = random_inputs(90, 48)
    expected = make_session(workers=4, channel=channel).load(network).run(x).outputs
    before = opened.need_one_before
    dies = Refuse("send", by=1, skip=3, times=1)
    model = make_session(dies, workers=4, channel=channel, settings=QUICK).load(network)
    with pytest.raises(ChannelError):
        model.run(x)
    assert (model.run(x).outputs != expected).nnz == 0
    assert opened.need_one_before > before
