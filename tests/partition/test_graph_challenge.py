"""What the partition of the real network must keep to, and how it compares with the paper's."""

from __future__ import annotations

import numpy as np
import pytest

from fsdcore.partition import Partition, make_partition, quality
from tests.shared_data import graph_challenge_data, official_network

pytestmark = pytest.mark.graph_challenge


def paper_partition() -> Partition:
    """The partition the authors published, for 120 layers and 8 workers."""
    with np.load(graph_challenge_data().parent / "paper" / "partition-1024-p8.npz") as arrays:
        return Partition(8, tuple(arrays["owner"].astype(np.int32)), "paper")


def test_the_first_layers_are_balanced_and_send_a_third_of_the_paper() -> None:
    network = official_network(10)
    ours = quality(network, make_partition(network, 8))
    paper = quality(network, Partition(8, paper_partition().owners[:11], "paper"))
    assert 3 * (ours.rows_sent + ours.input_rows_moved) < paper.rows_sent + paper.input_rows_moved
    assert max(ours.load_imbalance) <= 1.03


def test_the_count_is_that_of_the_published_partition() -> None:
    report = quality(official_network(), paper_partition())
    # Published: 6,452 messages, those for the input among them; the owners of the last layer are filled in.
    assert report.pairs == pytest.approx(6452, rel=0.01)
    assert report.rows_sent + report.input_rows_moved == pytest.approx(430_258, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_eight_workers_send_at_most_110_000_rows(seed: int) -> None:
    network = official_network()
    report = quality(network, make_partition(network, 8, seed=seed))
    assert report.rows_sent + report.input_rows_moved <= 110_000
    assert max(report.load_imbalance) <= 1.03


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3, 20])
def test_other_numbers_of_workers_are_balanced(workers: int) -> None:
    network = official_network()
    report = quality(network, make_partition(network, workers))
    assert max(report.load_imbalance) <= 1.03
