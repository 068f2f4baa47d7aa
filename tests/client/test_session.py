"""Runs against the oracle: the laws that hold for every network, partition and channel."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsd_local import LocalSettings
from fsdcore.api import connect
from fsdcore.errors import ConfigError, InputError, KeyMissingError, PlanError
from fsdcore.kernels import kernel_name as name_of_kernel
from fsdcore.network.activations import (
    IDENTITY,
    RELU,
    SIGMOID,
    SOFTMAX,
    TANH,
    Activation,
    clipped_relu,
    leaky_relu,
)
from fsdcore.network.network import Layer, Network
from fsdcore.network.verify import verify
from fsdcore.partition import Partition, make_partition
from fsdcore.record.file import check
from fsdcore.record.observer import Observer
from fsdcore.testing import random_inputs, random_network
from fsdcore.worker.plan_cache import PlanCache
from fsdcore.worker.worker import run_worker
from tests.conftest import SessionMaker

ACTIVATIONS = [IDENTITY, RELU, clipped_relu(1.5), leaky_relu(0.1), SIGMOID, TANH]

SMALL = random_network((12, 16, 10))

relaxed = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def networks(draw: st.DrawFn) -> Network:
    widths = draw(st.lists(st.integers(1, 14), min_size=2, max_size=6))
    activations: list[Activation] = draw(st.lists(st.sampled_from(ACTIVATIONS), min_size=1, max_size=4))
    density = draw(st.sampled_from([0.0, 0.2, 0.7]))
    bias = draw(st.sampled_from([-0.3, 0.0, 0.3]))
    network = random_network(widths, activations, density, bias, draw(st.integers(0, 999)))
    if draw(st.booleans()):
        last = network.layers[-1]
        return Network([*network.layers[:-1], Layer(last.weights, last.bias, SOFTMAX)])
    return network


@relaxed
@given(
    network=networks(),
    workers=st.integers(1, 5),
    channel=st.sampled_from(["queue", "object"]),
    method=st.sampled_from(["block", "random", "hypergraph"]),
    samples=st.integers(0, 9),
    batch_size=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.4, 1.0]),
    kernel=st.sampled_from(["auto", "scipy"]),
)
def test_a_run_agrees_with_the_oracle(
    make_session: SessionMaker,
    network: Network,
    workers: int,
    channel: str,
    method: str,
    samples: int,
    batch_size: int,
    density: float,
    kernel: str,
) -> None:
    x = random_inputs(samples, network.inputs, density)
    with make_session(channel=channel, workers=workers, method=method, kernel=kernel) as session:
        result = session.load(network).run(x, batch_size=batch_size)
    assert result.outputs.shape == (samples, network.outputs)
    assert verify(network, x, result.outputs).right


@relaxed
@given(seed=st.integers(0, 10_000), bias=st.sampled_from([-0.1, 0.1]))
def test_a_plan_gives_the_same_bits_whatever_channel_and_order(
    make_session: SessionMaker, seed: int, bias: float
) -> None:
    network = random_network((12, 16, 14, 16, 9), ACTIVATIONS, bias=bias)
    x = random_inputs(11, 12)
    partition = make_partition(network, 4, "random", 1)
    shuffled = LocalSettings(shuffle_seed=seed, max_frame_bytes=64, max_publish_bytes=128, max_receive_frames=3)
    several = LocalSettings(publishes_in_flight=4, background_receive=True)
    runs = [("queue", None, 4), ("queue", shuffled, 2), ("object", None, 1), ("queue", several, 3)]
    outputs = []
    for channel, local, branching in runs:
        with make_session(channel=channel, workers=4, branching=branching, settings=local) as session:
            outputs.append(session.load(network, partition).run(x.toarray()).outputs)
    assert len({values.tobytes() for values in outputs}) == 1


def test_dense_inputs_give_dense_outputs(make_session: SessionMaker) -> None:
    network = random_network((6, 7, 5))
    with make_session(workers=3) as session:
        model = session.load(network)
        x = random_inputs(4, 6)
        assert isinstance(model.run(x.toarray()).outputs, np.ndarray)
        assert sp.issparse(model.run(x).outputs)


def test_categories_are_the_samples_with_any_output(make_session: SessionMaker) -> None:
    network = Network([Layer(sp.eye_array(4, format="csr"), 0.0, RELU)])
    x = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 2, 2]], np.float32)
    with make_session(workers=2) as session:
        assert session.load(network).run(x).categories().tolist() == [1, 3]


def test_more_workers_than_neurons_is_right(make_session: SessionMaker) -> None:
    network = random_network((3, 2, 4, 1))
    x = random_inputs(5, 3, density=1.0)
    with make_session(workers=9) as session:
        assert verify(network, x, session.load(network).run(x).outputs).right


def test_the_record_adds_up(make_session: SessionMaker) -> None:
    network = random_network((20, 24, 24, 20))
    with make_session(workers=4) as session:
        model = session.load(network)
        record = model.run(random_inputs(30, 20), batch_size=10).record
    counters = record.counters
    assert (record.samples, record.batches, record.layers) == (30, 3, 3)
    assert counters["messages"] == 3 * model.quality.pairs
    assert counters["messages"] <= counters["frames"]
    assert 0 < counters["rows_sent"] <= 3 * model.quality.rows_sent
    assert counters["invocations"] == 4
    assert sum(layer["counters"]["rows_sent"] for layer in record.per_layer) == counters["rows_sent"]
    assert set(record.seconds) == {"load", "multiply", "encode", "decode", "send", "wait"}
    assert '"run_id"' in record.to_json()


def test_a_serial_run_sends_nothing(make_session: SessionMaker) -> None:
    network = random_network((20, 24, 20))
    with make_session(workers=1) as session:
        counters = session.load(network).run(random_inputs(30, 20)).record.counters
    assert counters["messages"] == counters["publishes"] == counters["receives"] == 0


def test_a_plan_is_made_once(make_session: SessionMaker, tmp_path: object) -> None:
    network = random_network((6, 7, 5))
    local = LocalSettings(path=str(tmp_path))
    steps: list[str] = []

    class Watcher:
        def progress(self, task: str, done: int, total: int) -> None:
            del done, total
            steps.append(task)

    for expected in (True, False):
        with make_session(workers=2, method="hypergraph", settings=local) as session:
            session.observer = Watcher()
            session.load(network)
            assert ("plan" in steps) == expected
        steps.clear()


def test_two_runs_of_one_session_at_once_do_not_mix(make_session: SessionMaker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    network = random_network((20, 24, 24, 20))
    inputs = [random_inputs(15, 20, seed=seed) for seed in range(6)]
    with make_session(workers=3, settings=LocalSettings(lanes=2)) as session, ThreadPoolExecutor(6) as pool:
        model = session.load(network)
        results = list(pool.map(model.run, inputs))
    for x, result in zip(inputs, results, strict=True):
        assert verify(network, x, result.outputs).right


def test_runs_in_a_row_on_one_lane_leave_each_other_their_frames(make_session: SessionMaker) -> None:
    network = random_network((20, 24, 24, 20))
    local = LocalSettings(lanes=1, background_receive=True, publishes_in_flight=2)
    with make_session(workers=4, settings=local) as session:
        model = session.load(network)
        for seed in range(8):
            x = random_inputs(15, 20, seed=seed)
            assert verify(network, x, model.run(x).outputs).right


def test_inputs_that_do_not_fit_are_refused(make_session: SessionMaker) -> None:
    with make_session(workers=2) as session:
        model = session.load(random_network((6, 7, 5)))
        with pytest.raises(InputError, match="5 neurons per sample, the network reads 6"):
            model.run(np.ones((2, 5)))
        with pytest.raises(InputError, match="finite"):
            model.run(np.full((2, 6), np.nan))
        with pytest.raises(InputError, match="batch_size"):
            model.run(np.ones((2, 6)), batch_size=0)


def test_a_partition_for_others_is_refused(make_session: SessionMaker) -> None:
    network = random_network((6, 7, 5))
    with make_session(workers=2) as session:
        with pytest.raises(PlanError, match="for 3 workers, the session has 2"):
            session.load(network, make_partition(network, 3, "block"))
        with pytest.raises(PlanError, match="another network"):
            session.load(network, make_partition(random_network((6, 7, 5), seed=1), 2, "block"))


def test_connect_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="did you mean 'workers'"):
        connect("local", worker=3)
    with pytest.raises(ConfigError, match="no channel 'pigeon'"):
        connect("local", channel="pigeon")


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("widths", "samples"), [((12, 16, 10), 0), ((12, 16, 0), 5), ((12, 0, 10), 5), ((0, 16, 10), 5), ((0, 0), 0)]
)
def test_where_there_is_nothing_to_compute_with_no_worker_starts(
    make_session: SessionMaker, workers: int, widths: tuple[int, ...], samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network([Layer(np.ones((after, before)), 0.5, RELU) for before, after in itertools.pairwise(widths)])
    session = make_session(workers=workers, channel="queue")
    model, x = session.load(network), np.ones((samples, widths[0]))
    monkeypatch.setattr(session.backend.compute, "invoke", None)
    result = model.run(x)
    np.testing.assert_array_equal(result.outputs, network.infer(x))
    assert result.outputs.shape == (samples, widths[-1])
    assert model.run(sp.csr_array(x)).outputs.shape == (samples, widths[-1])
    assert (result.record.samples, result.record.counters["invocations"]) == (samples, 0)
    check(result.record)
    assert session.backend.store.list("runs/") == []


@pytest.mark.parametrize("size", [0, -1, True, 2.5, "3", 2**31, 2**63])
def test_a_batch_size_that_cannot_be_is_refused_before_a_worker_starts(
    make_session: SessionMaker, size: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(workers=2)
    model = session.load(SMALL)
    monkeypatch.setattr(session.backend.compute, "invoke", None)
    with pytest.raises(InputError, match="batch_size must be a whole number from 1 to 2147483647"):
        model.run(random_inputs(3, SMALL.inputs), batch_size=size)


def test_what_is_no_network_or_partition_is_refused(make_session: SessionMaker) -> None:
    session = make_session(workers=2)
    with pytest.raises(InputError, match="load takes a Network, not a str; a file is read with load_network"):
        session.load("net.safetensors")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="partition must be a Partition, not a str"):
        session.load(SMALL, "split.npz")  # type: ignore[arg-type]


def test_a_network_divided_anew_runs_with_its_new_parts_in_warm_workers(
    make_session: SessionMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of the partitioner: the same name, another division, and functions that kept a part."""
    session, kept, network, inputs = (
        make_session(workers=2),
        PlanCache(1 << 30),
        random_network((20, 24, 20)),
        random_inputs(9, 20),
    )
    monkeypatch.setattr("fsdcore.worker.worker.run_worker", partial(run_worker, plans=kept))
    before = session.load(network)
    expected = before.run(inputs).outputs.toarray()
    session.backend.store.delete(session.backend.store.list("plans/"))

    def otherwise(network: Network, workers: int, method: str, seed: int, observer: Observer) -> Partition:
        return make_partition(network, workers, "random", 7)

    monkeypatch.setattr("fsdcore.client.session.make_partition", otherwise)
    after = session.load(network)
    assert before.plan != after.plan
    assert before.plan.partition("/")[0] == after.plan.partition("/")[0]
    np.testing.assert_allclose(after.run(inputs).outputs.toarray(), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(KeyMissingError, match="plans/"):
        before.quality.pairs  # noqa: B018 - its objects are gone, and none of the other's are taken for them


def test_a_session_that_was_forked_is_refused(make_session: SessionMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the child sees it: a fork of this process, with its threads, would be one that may hang."""
    session, network = make_session(workers=2), random_network((20, 24, 20))
    model = session.load(network)
    monkeypatch.setattr("os.getpid", lambda: 1)
    for use in (lambda: session.load(network), lambda: model.run(random_inputs(3, 20))):
        with pytest.raises(InputError, match=r"belongs to process [0-9]+, which has forked: connect again here"):
            use()


class Listening:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def progress(self, task: str, done: int, total: int) -> None:
        del task, done, total

    def notice(self, text: str) -> None:
        self.notices.append(text)


def test_the_record_names_the_kernel_of_each_worker_and_a_fallback_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    listening = Listening()
    with connect("local", workers=2, settings={}, observer=listening) as session:
        model = session.load(SMALL)
        record = model.run(random_inputs(3, 12)).record
        assert {worker.kernel for worker in record.per_worker} == {name_of_kernel("auto")}
        monkeypatch.setattr("fsdcore.kernels.compiled_is_there", lambda: False)
        listening.notices.clear()
        record = model.run(random_inputs(3, 12)).record
    assert all(worker.kernel.startswith("scipy") for worker in record.per_worker)
    assert listening.notices == [
        "all workers multiplied with scipy, as the compiled kernel is not installed there: slower, and other last bits"
    ]


def test_nothing_is_said_of_scipy_that_was_asked_for() -> None:
    listening = Listening()
    with connect("local", workers=2, kernel="scipy", observer=listening) as session:
        session.load(SMALL).run(random_inputs(3, 12))
    assert listening.notices == []
