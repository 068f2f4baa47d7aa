"""Barrier, gather, broadcast and reduce over threads that each are a rank."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fsd_local import LocalBackend, LocalSettings
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.channel import Address
from fsdcore.contracts.compute import new_run_id
from fsdcore.errors import WireError
from fsdcore.messages.mailbox import Mailbox
from fsdcore.messages.messenger import Messenger, Patience
from fsdcore.messages.segments import pack_arrays
from fsdcore.record.recorder import Recorder
from fsdcore.worker.collectives import Collectives

WORKERS = 5


def on_every_rank(work: Callable[[Collectives, int], Any], channel: str = "queue", limit: int = 1 << 20) -> list[Any]:
    """What `work` returns at each rank, over a channel that shuffles."""
    backend, run = LocalBackend(LocalSettings(shuffle_seed=1)), new_run_id(SYSTEM_CLOCK)

    def rank_work(rank: int) -> Any:
        address = Address(run, rank, WORKERS)
        mailbox = Mailbox(SYSTEM_CLOCK, run, rank, WORKERS, batches=1, layers=1)
        patience = Patience(20.0, SYSTEM_CLOCK.now() + 60.0, SYSTEM_CLOCK)
        messenger = Messenger(
            backend.open_channel(channel, address), address, mailbox, Recorder(SYSTEM_CLOCK, rank), patience
        )
        try:
            return work(Collectives(messenger, address, limit), rank)
        finally:
            messenger.close()

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(rank_work, range(WORKERS)))


@pytest.mark.parametrize("channel", ["queue", "object"])
@pytest.mark.parametrize("root", [0, 3])
def test_gather_brings_everything_to_the_root_in_rank_order(channel: str, root: int) -> None:
    gathered = on_every_rank(lambda group, rank: group.gather(b"%d" % rank * rank, root), channel)
    assert gathered[root] == [b"", b"1", b"22", b"333", b"4444"]
    assert all(result is None for rank, result in enumerate(gathered) if rank != root)


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_broadcast_gives_all_what_the_root_has(channel: str) -> None:
    given = on_every_rank(lambda group, rank: group.broadcast(b"of %d" % rank, root=2), channel)
    assert given == [b"of 2"] * WORKERS


def test_nobody_leaves_a_barrier_before_the_last_has_come() -> None:
    come, lock = [0], threading.Lock()

    def work(group: Collectives, rank: int) -> int:
        with lock:
            come[0] += 1
        group.barrier()
        return come[0]

    assert on_every_rank(work) == [WORKERS] * WORKERS


def test_a_reduce_is_folded_in_rank_order() -> None:
    parts = np.random.default_rng(0).normal(size=(WORKERS, 40)).astype(np.float32)
    (result, *others) = on_every_rank(lambda group, rank: group.reduce(parts[rank]))
    expected = parts[0]
    for part in parts[1:]:
        expected = expected + part
    assert result.tobytes() == expected.tobytes()
    assert others == [None] * (WORKERS - 1)


def test_a_reduce_takes_any_operator() -> None:
    results = on_every_rank(lambda group, rank: group.reduce(np.array([rank, -rank]), np.maximum, root=1))
    assert results[1].tolist() == [4, 0]


def test_operations_in_a_row_do_not_mix() -> None:
    def work(group: Collectives, rank: int) -> list[Any]:
        return [group.broadcast(b"%d" % step) for step in range(6)] + [group.gather(b"") is not None]

    assert on_every_rank(work)[2] == [b"0", b"1", b"2", b"3", b"4", b"5", False]


def test_arrays_that_differ_in_shape_cannot_be_reduced() -> None:
    with pytest.raises(WireError, match="differ in number, shape or dtype"):
        on_every_rank(lambda group, rank: group.reduce(np.zeros(rank + 1)))


def test_what_holds_no_array_cannot_be_reduced() -> None:
    def work(group: Collectives, rank: int) -> object:
        return group.reduce(np.zeros(3)) if rank == 0 else group.gather(pack_arrays({}))

    with pytest.raises(WireError, match="differ in number"):
        on_every_rank(work)


def test_a_part_over_the_limit_is_refused() -> None:
    with pytest.raises(WireError):
        on_every_rank(lambda group, rank: group.gather(bytes(5_000)), limit=100)
