"""Laws that hold for every way to partition."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsdcore.errors import ConfigError, InputError, MissingExtraError, PlanError
from fsdcore.network.generate import radixnet
from fsdcore.network.network import Network
from fsdcore.partition import METHODS, Partition, make_partition, quality
from fsdcore.partition.hypergraph import largest_load
from tests.partition.networks import layer_of, networks, random_network

WORKERS = st.sampled_from([1, 2, 3, 5, 8, 16, 62, 128])


def same(first: Partition, second: Partition) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.owners, second.owners, strict=True))


def loads(network: Network, partition: Partition, layer: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    nonzeros = np.diff(network.layers[layer - 1].weights.indptr)
    owners = partition.owners[layer]
    return np.array([nonzeros[owners == rank].sum() for rank in range(partition.workers)])


@pytest.mark.parametrize("method", sorted(METHODS))
@given(network=networks(), workers=WORKERS, seed=st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=60)
def test_every_neuron_has_one_owner_in_range(method: str, network: Network, workers: int, seed: int) -> None:
    partition = make_partition(network, workers, method, seed)
    partition.check(network)
    assert (partition.workers, partition.method, partition.seed) == (workers, method, seed)
    assert partition.fingerprint == network.fingerprint
    for owners, width in zip(partition.owners, network.widths, strict=True):
        assert owners.dtype == np.int32
        assert owners.shape == (width,)
        assert owners.min() >= 0
        assert owners.max() < workers


@pytest.mark.parametrize("method", sorted(METHODS))
@given(network=networks(), workers=WORKERS, seed=st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=30)
def test_the_same_seed_gives_the_same_partition(method: str, network: Network, workers: int, seed: int) -> None:
    first = make_partition(network, workers, method, seed)
    make_partition(network, workers, method, seed // 2)
    assert same(first, make_partition(network, workers, method, seed))


@given(network=networks(), workers=WORKERS)
@settings(deadline=None)
def test_block_is_consecutive_and_over_the_mean_by_a_row_at_most(network: Network, workers: int) -> None:
    partition = make_partition(network, workers, "block")
    for layer in range(1, len(network) + 1):
        assert (np.diff(partition.owners[layer]) >= 0).all()
        heaviest = np.diff(network.layers[layer - 1].weights.indptr).max()
        load = loads(network, partition, layer)
        assert load.max() <= load.mean() + heaviest + 1


@given(network=networks(), workers=WORKERS, seed=st.integers(0, 1000))
@settings(deadline=None)
def test_random_deals_equal_numbers_of_neurons(network: Network, workers: int, seed: int) -> None:
    for owners in make_partition(network, workers, "random", seed).owners:
        counts = np.bincount(owners, minlength=workers)
        assert counts.max() - counts.min() <= 1


def test_random_differs_by_seed() -> None:
    network = radixnet(64, 2)
    assert not same(make_partition(network, 4, "random", 1), make_partition(network, 4, "random", 2))


@pytest.mark.parametrize("workers", [2, 3, 7, 8, 20, 64, 100, 128])
def test_hypergraph_is_as_balanced_as_whole_rows_allow(workers: int) -> None:
    network = radixnet(256, 3)
    partition = make_partition(network, workers)
    for layer in range(1, 4):
        load = loads(network, partition, layer)
        assert load.max() <= max(1.03 * load.mean(), 32 * -(-256 // workers))


@pytest.mark.parametrize("seed", range(5))
def test_hypergraph_balances_rows_of_uneven_length(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = Network(layer_of(rng.random((400, 300)) < rng.random((400, 1)) ** 3) for _ in range(1))
    load = loads(network, make_partition(network, 8, seed=seed), 1)
    assert load.max() <= 1.03 * load.mean()


@given(network=networks(), workers=WORKERS)
@settings(deadline=None, max_examples=40)
def test_hypergraph_shares_out_rows_without_nonzeros(network: Network, workers: int) -> None:
    partition = make_partition(network, workers)
    for owners, layer in zip(partition.owners[1:], network.layers, strict=True):
        empty = np.diff(layer.weights.indptr) == 0
        filled = np.bincount(owners[~empty], minlength=workers)
        final = np.bincount(owners, minlength=workers)
        # Only the ranks with the fewest neurons got any.
        assert (final[final > filled] <= final.min() + 1).all()


def test_with_more_workers_than_rows_no_rank_has_two() -> None:
    network = random_network([50, 40], 3)
    filled = np.diff(network.layers[0].weights.indptr) > 0
    owners = make_partition(network, 64).owners[1]
    assert np.bincount(owners[filled]).max() == 1


def test_few_rows_are_owned_where_their_inputs_are() -> None:
    blocks = np.kron(np.eye(4), np.ones((16, 16)))
    last = np.kron(np.eye(4)[[2, 0, 3, 1]], np.ones((1, 16)))
    network = Network([layer_of(blocks), layer_of(blocks), layer_of(last)])
    assert quality(network, make_partition(network, 4)).rows_sent == 0


def test_hypergraph_sends_less_than_the_simple_methods() -> None:
    network = radixnet(256, 8)
    rows = {method: quality(network, make_partition(network, 8, method)).rows_sent for method in METHODS}
    assert 2 * rows["hypergraph"] < min(rows["block"], rows["random"])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_inputs_belong_to_a_rank_that_exists_even_if_nobody_reads_them(method: str) -> None:
    network = Network([layer_of(np.eye(6, 9))])
    owners = make_partition(network, 3, method).owners[0]
    assert owners.shape == (9,)
    assert set(owners.tolist()) <= {0, 1, 2}


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'hypergrph'; did you mean 'hypergraph'") as caught:
        make_partition(radixnet(64, 1), 2, "hypergrph")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("workers", "seed"), [(0, 0), (-1, 0), (2, -1), (2, 2**31)])
def test_numbers_out_of_range_are_refused(workers: int, seed: int) -> None:
    with pytest.raises(ConfigError, match=r"workers|seed"):
        make_partition(radixnet(64, 1), workers, seed=seed)


class Steps:
    def __init__(self, interrupt_at: int = -1) -> None:
        self.heard: list[tuple[str, int, int]] = []
        self._interrupt_at = interrupt_at

    def progress(self, task: str, done: int, total: int) -> None:
        self.heard.append((task, done, total))
        if done == self._interrupt_at:
            signal.raise_signal(signal.SIGINT)


def test_progress_is_told_after_each_layer() -> None:
    steps = Steps()
    make_partition(radixnet(64, 3), 2, observer=steps)
    assert steps.heard == [("partition", 1, 3), ("partition", 2, 3), ("partition", 3, 3)]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_progress_ends_with_the_last_layer(method: str) -> None:
    steps = Steps()
    make_partition(radixnet(64, 3), 2, method, observer=steps)
    assert steps.heard[-1] == ("partition", 3, 3)


def test_an_interrupt_stops_between_layers_and_the_next_call_works() -> None:
    network, steps = radixnet(64, 5), Steps(interrupt_at=2)
    with pytest.raises(KeyboardInterrupt):
        make_partition(network, 4, observer=steps)
    assert steps.heard[-1] == ("partition", 2, 5)
    make_partition(network, 4).check(network)


def test_the_partitioner_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    make_partition(radixnet(64, 3), 5)
    assert capfd.readouterr() == ("", "")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


MADE = """
from fsdcore.network.generate import radixnet
from fsdcore.partition import make_partition
print(b"".join(o.tobytes() for o in make_partition(radixnet(64, 4), 3, seed=7).owners).hex())
"""


def test_another_process_makes_the_same_partition() -> None:
    here = b"".join(owners.tobytes() for owners in make_partition(radixnet(64, 4), 3, seed=7).owners)
    assert run_python(MADE) == here.hex()


def test_importing_the_package_does_not_import_the_partitioner() -> None:
    assert run_python("import sys, fsdcore.partition; print('mtkahypar' in sys.modules)") == "False"


MISSING = """
import sys
from typing import Any
sys.modules["mtkahypar"] = None
from fsdcore.errors import MissingExtraError
from fsdcore.partition import make_partition
from fsdcore.network.generate import radixnet
network = radixnet(64, 2)
for workers, method in ((1, "hypergraph"), (2, "block"), (2, "random")):
    make_partition(network, workers, method)
try:
    make_partition(network, 2)
except MissingExtraError as error:
    print(error)
"""


def test_without_the_partitioner_only_hypergraph_is_refused() -> None:
    assert issubclass(MissingExtraError, ValueError)
    assert "pip install 'fsd-inference[client]'" in run_python(MISSING)


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=7), workers=st.integers(1, 4))
@settings(deadline=None)
def test_no_partition_stays_below_the_largest_load_unless_within_3_percent(sizes: list[int], workers: int) -> None:
    best = sum(sizes)
    for number in range(workers ** len(sizes)):
        ranks = [number // workers**place % workers for place in range(len(sizes))]
        best = min(best, int(np.bincount(ranks, sizes).max()))
    allowed = largest_load(np.array(sizes), workers)
    assert allowed <= max(best, 1.03 * sum(sizes) / workers)
    assert allowed >= sum(sizes) / workers


@pytest.mark.parametrize(
    "given",
    [{"workers": 1.5}, {"workers": "2"}, {"workers": None}, {"workers": True}, {"workers": 2**40}, {"seed": "a"}],
)
def test_numbers_that_are_none_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(given))):
        make_partition(random_network([4, 4], 0), **{"workers": 2, "method": "block", **given})


@pytest.mark.parametrize("owners", [None, "ab", ["ab", "cd"], [[0.5] * 4] * 2, [[True] * 4] * 2, [[[0]] * 4] * 2])
def test_owners_that_are_no_ranks_are_refused(owners: Any) -> None:
    with pytest.raises(PlanError):
        Partition(2, owners, "mine")


def test_a_partition_owns_its_arrays() -> None:
    given = [np.zeros(4, np.int32), np.zeros(4, np.int32)]
    made = Partition(2, tuple(given), "mine")
    given[0][:] = 1
    assert made.owners[0].tolist() == [0] * 4
    assert Partition(np.int64(2), ([0, 1], [1, 0]), "mine").owners[1].tolist() == [1, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [lambda: make_partition(None, 2), lambda: quality(None, None)])  # type: ignore[arg-type]
def test_what_is_no_network_is_refused(call: Any) -> None:
    with pytest.raises(InputError, match="this takes a Network"):
        call()
