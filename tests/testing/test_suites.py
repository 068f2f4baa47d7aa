"""The suites for authors of backends find what is wrong: each flaw fails the test that is there for it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import msgspec
import pytest

from fsd_local import LocalBackend, LocalSettings
from fsd_local.queue import LocalQueueChannel, QueueService
from fsd_local.stores import MemoryStore
from fsdcore.clock import Deadline
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Outgoing, Received
from fsdcore.contracts.compute import Exit, Invocation
from fsdcore.contracts.store import Store
from fsdcore.errors import FsdError, KeyMissingError, PreconditionError
from fsdcore.testing import ChannelTests, ComputeTests, StoreTests
from fsdcore.testing.channels import Opener
from fsdcore.testing.clock import VirtualClock
from fsdcore.worker.threads import ThreadCompute
from fsdcore.worker.worker import run_worker

Failed = (AssertionError, pytest.fail.Exception, PreconditionError)


class _Greedy(MemoryStore):
    """`if_absent` is not looked at."""

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        super().put(key, data)


class _Stubborn(MemoryStore):
    """Never replaces an object."""

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        if not self.exists(key):
            super().put(key, data, if_absent)


class _Short(MemoryStore):
    """Lists one page and no more."""

    def list(self, prefix: str) -> list[str]:
        return super().list(prefix)[:1000]


class _Long(MemoryStore):
    """A range goes on to the end of the object."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        super().get_range(key, start, length)
        return self.get(key)[start:]


@pytest.mark.parametrize(
    ("store", "check"),
    [
        (_Greedy, lambda suite, store: suite.test_if_absent_leaves_what_is_there(store)),
        (_Greedy, lambda suite, store: suite.test_one_of_many_that_put_if_absent_wins(store)),
        (_Stubborn, lambda suite, store: suite.test_a_second_put_replaces_the_object(store)),
        (_Short, lambda suite, store: suite.test_list_gives_all_of_many_keys(store)),
        (_Long, lambda suite, store: suite.test_a_range_ends_where_the_object_ends(store, 3, 4, b"3456")),
    ],
)
def test_a_store_that_breaks_its_contract_is_found(
    store: Callable[[], Store], check: Callable[[StoreTests, Store], None]
) -> None:
    check(StoreTests(), MemoryStore())
    with pytest.raises(Failed):
        check(StoreTests(), store())


class _Deaf(LocalQueueChannel):
    """Acknowledgements are not heard."""

    def acknowledge(self, received: Sequence[Received]) -> None:
        del received


class _Forgetful(LocalQueueChannel):
    """What was received never comes again."""

    def receive(self, deadline: Deadline) -> list[Received]:
        received = super().receive(deadline)
        super().acknowledge(received)
        return received


class _Lossy(LocalQueueChannel):
    """The second frame of a publish gets lost."""

    def send(self, frames: Sequence[Outgoing]) -> None:
        super().send([*frames[:1], *frames[2:]])


class _Lax(LocalQueueChannel):
    """Sends what it can of a publish over the limits."""

    def send(self, frames: Sequence[Outgoing]) -> None:
        super().send([frame for frame in frames if len(frame.data) <= self.capabilities.max_frame_bytes][:10])


class _Crossed(LocalQueueChannel):
    """All lanes are one."""

    def __init__(self, service: QueueService, address: Address) -> None:
        super().__init__(service, dataclasses.replace(address, lane=0))


class _Suite(ChannelTests):
    clock = VirtualClock()


def opener_of(kind: type[LocalQueueChannel]) -> Opener:
    service = QueueService(LocalSettings(max_frame_bytes=8192).limits(), visibility_timeout=0.1, clock=_Suite.clock)
    return lambda address: kind(service, address)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (_Deaf, _Suite().test_acknowledged_frames_do_not_come_again),
        (_Forgetful, _Suite().test_frames_not_acknowledged_come_again),
        (_Lossy, _Suite().test_frames_arrive_unaltered_at_the_rank_they_are_for),
        (_Lossy, _Suite().test_publishes_at_the_limits_pass),
        (_Lax, _Suite().test_a_breach_of_the_limits_is_refused_and_nothing_is_sent),
        (_Crossed, _Suite().test_runs_on_different_lanes_do_not_mix),
    ],
)
def test_a_channel_that_breaks_its_contract_is_found(
    kind: type[LocalQueueChannel], check: Callable[[Opener], None]
) -> None:
    check(opener_of(LocalQueueChannel))
    with pytest.raises(Failed):
        check(opener_of(kind))


class _Compute(ThreadCompute):
    """Runs each worker before `invoke` returns, in a way to be changed."""

    def invoke(self, invocation: Invocation) -> None:
        with contextlib.suppress(FsdError):
            run_worker(self.worker_backend, invocation)


class _Lonely(_Compute):
    """Starts rank 0 and nobody else."""

    def invoke(self, invocation: Invocation) -> None:
        if invocation.rank == 0:
            impatient = msgspec.structs.replace(invocation.settings, deadline_seconds=0.2)
            super().invoke(msgspec.structs.replace(invocation, settings=impatient))


class _Silent(_Compute):
    """Says of every worker that it finished."""

    def exits(self, run: str) -> Sequence[Exit]:
        del run
        return [Exit(0, None)]


class _Backend(LocalBackend):
    def __init__(self, compute: type[ThreadCompute]) -> None:
        super().__init__()
        self._compute = compute(self)


@pytest.mark.parametrize(
    ("compute", "check"),
    [
        (_Lonely, ComputeTests.test_one_invocation_starts_every_rank_of_the_tree),
        (_Silent, ComputeTests.test_a_worker_that_fails_says_so),
        (_Silent, ComputeTests.test_a_run_nobody_knows_has_no_exits),
    ],
)
def test_a_compute_that_breaks_its_contract_is_found(
    compute: type[ThreadCompute], check: Callable[[ComputeTests, Backend], None]
) -> None:
    check(ComputeTests(), _Backend(ThreadCompute))
    with pytest.raises((*Failed, KeyMissingError)):
        check(ComputeTests(), _Backend(compute))
