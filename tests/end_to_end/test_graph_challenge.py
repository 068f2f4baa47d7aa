"""The real Graph Challenge network on every backend, checked against the official answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import scipy.sparse as sp

from fsdcore.client.session import Result
from fsdcore.contracts.settings import RunSettings
from fsdcore.network.network import Network
from tests.end_to_end.sites import Site, bits, calls_of
from tests.shared_data import graph_challenge_data, official_network

pytestmark = [pytest.mark.graph_challenge, pytest.mark.timeout(1_200)]
# What the authors' runs took at 8 workers: 1,102 publishes of 104 MB; 6,452 puts, 6,450 gets, 1,615 lists.
MOST = {
    "queue": {"publishes": 1_050, "bytes_sent": 9_500_000},
    "sqs": {"bytes_sent": 9_500_000},
    # Where each publish is for one worker.
    "queue, one target": {"publishes": 7_000, "bytes_sent": 7_000_000},
    "object": {"puts": 1_000, "gets": 10_000, "lists": 100},
}
# Where the services say what they billed and saw.
MOST_SEEN: dict[str, dict[str, float]] = {
    "queue": {"publishes": 1_050, "billed_bytes": 10_000_000, "empty_share": 0.2},
    "queue, one target": {"publishes": 7_000, "published_bytes": 7_000_000},
    "sqs": {"billed_bytes": 10_000_000, "empty_share": 0.2},
    "object": {"layer_puts": 1_000, "gets": 10_000, "lists": 100},
}
# What Google Cloud is known for, at once and one after the other.
WORLDLY = (
    "no instance at first",
    "starts aborted with 500",
    "roles not in force at first",
    "connections that go silent",
    "pulls answered in part and empty",
    "all of these together",
)
# Of these those that concern starts, and so a single worker too.
OF_STARTS = tuple(fault for fault in WORLDLY if fault != "pulls answered in part and empty")
ALL = "all of these together"
# All workers share the cores of one machine, which may have other work.
PATIENT = {"deadline_seconds": 600.0, "run_seconds": 850.0}
# What a user has who sets nothing.
USUAL = {"deadline_seconds": RunSettings().deadline_seconds, "run_seconds": RunSettings().run_seconds}
Categories: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
RecordProperty: TypeAlias = Callable[[str, object], None]


@pytest.fixture(scope="module")
def network() -> Network:
    return official_network()


@pytest.fixture(scope="module")
def inputs() -> sp.csr_array:
    """All 10,000 official inputs."""
    with np.load(graph_challenge_data() / "images-10000.npz") as images:
        indices, indptr = images["indices"].astype(np.int32), images["indptr"]
    return sp.csr_array((np.ones(indices.size, np.float32), indices, indptr), shape=(indptr.size - 1, 1024))


@pytest.fixture(scope="module")
def categories() -> Categories:
    """The official answer, from 0."""
    return np.loadtxt(graph_challenge_data() / "categories.tsv", dtype=np.int64) - 1


def test_ten_layers_of_the_real_network_are_exact(site: Site, network: Network, inputs: sp.csr_array) -> None:
    shallow, some = Network(network.layers[:10]), inputs[:200]
    with site.session(workers=4, channel="queue") as session:
        result = session.load(shallow).run(some)
    assert np.array_equal(result.categories(), np.unique(sp.csr_array(shallow.infer(some)).nonzero()[0]))


@pytest.mark.slow
@pytest.mark.parametrize("branching", [2, 8])
@pytest.mark.parametrize("channel", ["queue", "sqs", "object"])
def test_eight_workers_give_the_official_answer_with_few_calls(
    site: Site,
    network: Network,
    inputs: sp.csr_array,
    categories: Categories,
    channel: str,
    branching: int,
    record_property: RecordProperty,
) -> None:
    if channel not in site.channels:
        pytest.skip(f"{site.name} has no channel {channel}")
    with site.session(workers=8, channel=channel, branching=branching, method="hypergraph", **PATIENT) as session:
        result = session.load(network).run(inputs)
        together = channel != "queue" or session.backend.channel_capabilities(channel).multi_target
    assert np.array_equal(result.categories(), categories)
    kind = channel if together else "queue, one target"
    counters = result.record.counters
    if site.bills:
        assert {name: counters[name] for name, count in MOST[kind].items() if counters[name] > count} == {}
    figures = site.figures(result.record.run_id)
    record_property("figures", figures)
    if figures:
        assert site.requests(result.record.run_id) == calls_of(result.record)
        assert {name: figures[name] for name, count in MOST_SEEN[kind].items() if figures[name] > count} == {}


def run_under(site: Site, fault: str, network: Network, inputs: sp.csr_array, **settings: Any) -> Result:
    """A run that meets the fault from its first start on, with the deadlines of a user where all come together."""
    times = USUAL if fault == ALL else PATIENT
    with site.session(method="hypergraph", **times, **settings) as session:
        model = session.load(network)
        site.harm(fault)
        result = model.run(inputs)
        assert site.harmed()
        return result


@pytest.mark.slow
@pytest.mark.parametrize("branching", [2, 8])
@pytest.mark.parametrize("channel", ["queue", "object"])
@pytest.mark.parametrize("fault", WORLDLY)
def test_what_a_real_project_does_changes_no_answer(
    worldly_site: Site,
    network: Network,
    inputs: sp.csr_array,
    categories: Categories,
    channel: str,
    branching: int,
    fault: str,
) -> None:
    if fault not in worldly_site.faults(channel):
        pytest.skip(f"{channel} does not pull")
    result = run_under(worldly_site, fault, network, inputs, workers=8, channel=channel, branching=branching)
    assert np.array_equal(result.categories(), categories)


@pytest.mark.slow
@pytest.mark.parametrize("fault", OF_STARTS)
def test_what_a_real_project_does_to_starts_changes_no_answer_of_one_worker(
    worldly_site: Site, network: Network, inputs: sp.csr_array, categories: Categories, fault: str
) -> None:
    assert np.array_equal(run_under(worldly_site, fault, network, inputs, workers=1).categories(), categories)


@pytest.mark.slow
def test_twenty_workers_bear_all_that_a_real_project_does_at_once(
    worldly_site: Site, network: Network, inputs: sp.csr_array
) -> None:
    some = inputs[:1_000]
    result = run_under(worldly_site, ALL, network, some, workers=20, channel="queue")
    assert np.array_equal(result.categories(), np.unique(sp.csr_array(network.infer(some)).nonzero()[0]))


@pytest.mark.slow
def test_text_gives_the_official_answer_too(
    text_site: Site,
    network: Network,
    inputs: sp.csr_array,
    categories: Categories,
    record_property: RecordProperty,
) -> None:
    with text_site.session(workers=8, channel="queue", method="hypergraph", **PATIENT) as session:
        result = session.load(network).run(inputs)
    figures = text_site.figures(result.record.run_id)
    record_property("figures", figures)
    assert np.array_equal(result.categories(), categories)
    # Four bytes for three.
    assert figures["billed_bytes"] > 1.3 * result.record.counters["bytes_sent"]


@pytest.mark.slow
@pytest.mark.parametrize("channel", ["queue", "object"])
def test_all_sites_give_the_same_bits(sites: list[Site], network: Network, inputs: sp.csr_array, channel: str) -> None:
    outputs = set()
    for site in sites:
        with site.session(workers=8, channel=channel, method="hypergraph") as session:
            outputs.add(bits(session.load(network).run(inputs[:1_000], batch_size=250).outputs))
    assert (len(sites), len(outputs)) == (3, 1)


@pytest.mark.slow
def test_one_worker_gives_the_official_answer(
    site: Site, network: Network, inputs: sp.csr_array, categories: Categories
) -> None:
    with site.session(workers=1) as session:
        assert np.array_equal(session.load(network).run(inputs).categories(), categories)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "layers", "samples"), [(20, 120, 1_000), (62, 6, 1_000)])
def test_many_workers_agree_with_the_oracle(
    site: Site,
    network: Network,
    inputs: sp.csr_array,
    workers: int,
    layers: int,
    samples: int,
    record_property: RecordProperty,
) -> None:
    some = Network(network.layers[:layers])
    with site.session(workers=workers, channel="queue", method="hypergraph", **PATIENT) as session:
        result = session.load(some).run(inputs[:samples])
    record_property("figures", site.figures(result.record.run_id))
    assert result.record.counters["invocations"] == workers
    assert np.array_equal(result.categories(), np.unique(sp.csr_array(some.infer(inputs[:samples])).nonzero()[0]))
