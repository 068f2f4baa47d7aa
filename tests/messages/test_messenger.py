"""Messages over a channel: counted, acknowledged, given back, waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing

import pytest

from fsd_local import LocalSettings
from fsd_local.queue import LocalQueueChannel, QueueService
from fsd_local.stores import MemoryStore
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Address, Outgoing, Received, Slot
from fsdcore.errors import AbortedError, ChannelError, DeadlineError, RunError, WireError
from fsdcore.messages.frames import ABORT, DATA, Body, build_frames, make_body
from fsdcore.messages.mailbox import AbortNotice, Mailbox
from fsdcore.messages.messenger import Awaited, Messenger, Patience
from fsdcore.record.recorder import Recorder
from fsdcore.testing.clock import VirtualClock
from fsdcore.worker.leases import Watch, take_lease

OLDER, RUN, YOUNGER = "00000000000000aa", "00000000000000bb", "00000000000000cc"
SLOT = Slot(DATA, 0, 1)


class Ends:
    """Two messengers of one run over one service."""

    def __init__(self, settings: LocalSettings | None = None, seconds: float = 5.0) -> None:
        self.settings = settings or LocalSettings()
        self.service = QueueService(self.settings.limits(), visibility_timeout=30.0, clock=SYSTEM_CLOCK)
        self.recorders = [Recorder(SYSTEM_CLOCK, rank) for rank in range(2)]
        self.ends = [self.messenger(rank, seconds) for rank in range(2)]

    def messenger(self, rank: int, seconds: float) -> Messenger:
        address, mailbox = Address(RUN, rank, 2), Mailbox(SYSTEM_CLOCK, RUN, rank, workers=2, batches=1, layers=3)
        patience = Patience(seconds, SYSTEM_CLOCK.now() + 60.0, SYSTEM_CLOCK)
        channel = LocalQueueChannel(self.service, address)
        return Messenger(channel, address, mailbox, self.recorders[rank], patience)

    def send_raw(self, data: bytes) -> None:
        LocalQueueChannel(self.service, Address(RUN, 0, 2)).send([Outgoing(1, data)])

    def counts(self, rank: int) -> dict[str, int]:
        return {name: sum(counts) for name, counts in self.recorders[rank].finish(0).counters.items()}

    def waiting(self, rank: int = 1) -> int:
        """Frames that are still in the rank's queue, received or not."""
        return self.service.queue(0, rank).purge()


@pytest.fixture(params=[LocalSettings(), LocalSettings(publishes_in_flight=3, background_receive=True)])
def ends(request: pytest.FixtureRequest) -> Callable[[], Ends]:
    return lambda: Ends(request.param)


def frames_of(run: str, plain: bytes) -> Sequence[bytes]:
    return list(build_frames(run, SLOT, 0, 1, make_body(plain), 1 << 20))


def test_messages_arrive_are_counted_and_leave_nothing_behind(ends: Callable[[], Ends]) -> None:
    pair = ends()
    pair.ends[0].send(SLOT, [(1, make_body(b"hello"))])
    pair.ends[0].send(Slot(DATA, 0, 2), [(1, Body(0, b""))])
    pair.ends[0].flush()
    assert pair.ends[1].receive(SLOT, 0) == make_body(b"hello")
    assert pair.ends[1].receive(Slot(DATA, 0, 2), 0) == Body(0, b"")
    for end in pair.ends:
        end.close()
    counts = pair.counts(0)
    assert (counts["messages"], counts["frames"], counts["publishes"]) == (2, 2, 2)
    assert counts["bytes_sent"] == sum(map(len, frames_of(RUN, b"hello"))) + len(frames_of(RUN, b"")[0])
    assert pair.waiting() == 0


def test_frames_of_an_older_run_are_thrown_away(ends: Callable[[], Ends]) -> None:
    pair = ends()
    pair.send_raw(frames_of(OLDER, b"left over")[0])
    pair.send_raw(frames_of(RUN, b"mine")[0])
    assert pair.ends[1].receive(SLOT, 0) == make_body(b"mine")
    pair.ends[1].close()
    assert pair.waiting() == 0


def test_frames_of_a_younger_run_are_given_back_and_end_this_one(ends: Callable[[], Ends]) -> None:
    pair = ends()
    pair.send_raw(frames_of(YOUNGER, b"not mine")[0])
    with pytest.raises(RunError, match="a younger run has its lane"):
        pair.ends[1].receive(SLOT, 0)
    pair.ends[1].close()
    assert pair.waiting() == 1


def test_a_frame_for_another_rank_is_thrown_away_and_counted(ends: Callable[[], Ends]) -> None:
    pair = ends()
    pair.send_raw(next(build_frames(RUN, SLOT, 0, 0, make_body(b"for rank 0"), 1 << 20)))
    pair.send_raw(frames_of(RUN, b"mine")[0])
    assert pair.ends[1].receive(SLOT, 0) == make_body(b"mine")
    pair.ends[1].close()
    assert (pair.waiting(), pair.counts(1)["dropped"]) == (0, 1)


def test_a_damaged_frame_ends_the_run_but_not_the_next_one(ends: Callable[[], Ends]) -> None:
    pair = ends()
    pair.send_raw(b"FS and then garbage")
    with pytest.raises(WireError):
        pair.ends[1].receive(SLOT, 0)
    pair.ends[1].close()
    assert pair.waiting() == 0


def test_what_does_not_come_is_a_deadline_that_names_whom_was_waited_for(ends: Callable[[], Ends]) -> None:
    pair = Ends(ends().settings, seconds=0.05)
    with pytest.raises(DeadlineError, match=r"nothing came from rank 0 within 0.05 s") as caught:
        pair.ends[1].receive(SLOT, 0)
    assert (caught.value.peer, caught.value.layer, caught.value.batch) == (0, 1, 0)
    pair.ends[1].close()


def test_an_abort_reaches_the_peer(ends: Callable[[], Ends]) -> None:
    pair = ends()
    pair.ends[0].abort(AbortNotice(rank=0, layer=2, error="StoreError", message="it broke"))
    with pytest.raises(AbortedError, match="it broke"):
        pair.ends[1].receive(SLOT, 0)
    for end in pair.ends:
        end.close()


def test_a_publish_that_fails_is_raised_no_later_than_by_flush(
    ends: Callable[[], Ends], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: LocalQueueChannel, frames: Sequence[Outgoing]) -> None:
        raise ChannelError("the service refuses")

    def send_and_flush(messenger: Messenger) -> None:
        messenger.send(SLOT, [(1, make_body(b"hello"))])
        messenger.flush()

    pair = ends()
    monkeypatch.setattr(LocalQueueChannel, "send", refused)
    with pytest.raises(ChannelError, match="the service refuses"):
        send_and_flush(pair.ends[0])
    pair.ends[0].close()


class RefusingChannel(LocalQueueChannel):
    """A queue that takes nothing."""

    def send(self, frames: Sequence[Outgoing]) -> None:
        del frames
        raise ChannelError("the queue takes nothing")


def test_a_publish_that_fails_ends_the_wait_of_its_own_rank(ends: Callable[[], Ends]) -> None:
    """Or all would wait for each other in vain, and the cause would never be told."""
    pair = ends()
    address = Address(RUN, 0, 2)
    channel = RefusingChannel(pair.service, address)
    patience = Patience(5.0, SYSTEM_CLOCK.now() + 60.0, SYSTEM_CLOCK)
    messenger = Messenger(
        channel,
        address,
        Mailbox(SYSTEM_CLOCK, RUN, 0, workers=2, batches=1, layers=3),
        Recorder(SYSTEM_CLOCK, 0),
        patience,
    )

    def exchange() -> None:
        messenger.send(SLOT, [(1, make_body(b"lost"))])
        messenger.receive(SLOT, 1)

    with pytest.raises(ChannelError, match="takes nothing"):
        exchange()
    messenger.close()
    for end in pair.ends:
        end.close()


class BrokenChannel(LocalQueueChannel):
    """A stranger's, which raises what is no error of the framework: from `send`, or from `receive`."""

    def __init__(self, service: QueueService, address: Address, broken: str) -> None:
        super().__init__(service, address)
        self._broken = broken

    def send(self, frames: Sequence[Outgoing]) -> None:
        if self._broken == "send":
            raise KeyError("no such topic")
        super().send(frames)

    def receive(self, deadline: Deadline) -> list[Received]:
        if self._broken == "receive":
            raise KeyError("no such topic")
        return super().receive(deadline)


@pytest.mark.parametrize("broken", ["send", "receive"])
def test_whatever_a_channel_raises_in_another_thread_ends_the_wait(broken: str) -> None:
    settings = LocalSettings(publishes_in_flight=2, background_receive=True)
    service, address = QueueService(settings.limits(), visibility_timeout=30.0, clock=SYSTEM_CLOCK), Address(RUN, 0, 2)
    # Longer than a test may last.
    patience = Patience(3_600.0, SYSTEM_CLOCK.now() + 3_600.0, SYSTEM_CLOCK)
    mailbox = Mailbox(SYSTEM_CLOCK, RUN, 0, workers=2, batches=1, layers=3)
    messenger = Messenger(
        BrokenChannel(service, address, broken), address, mailbox, Recorder(SYSTEM_CLOCK, 0), patience
    )
    if broken == "send":
        messenger.send(SLOT, [(1, make_body(b"lost"))])
    with pytest.raises(KeyError, match="no such topic"):
        messenger.receive(SLOT, 1)
    messenger.close()


def test_an_abort_that_cannot_be_read_ends_the_wait(ends: Callable[[], Ends]) -> None:
    pair = Ends(ends().settings, seconds=3_600.0)
    (frame,) = build_frames(RUN, Slot(ABORT, 0, 0), 0, 1, Body(1, b'{"message": "caf\xe9"}'), 1 << 20)
    pair.send_raw(frame)
    with pytest.raises(WireError, match="an abort that cannot be read"):
        pair.ends[1].receive(SLOT, 0)
    pair.ends[1].close()
    assert pair.waiting() == 0


class SlowlyRefusingChannel(RefusingChannel):
    """Refuses only once the rank waits for its peer; a receive lasts to its deadline, as a long poll may."""

    def __init__(self, service: QueueService, address: Address) -> None:
        super().__init__(service, address)
        self.waits = threading.Event()

    def send(self, frames: Sequence[Outgoing]) -> None:
        assert self.waits.wait(60.0)
        super().send(frames)

    def receive(self, deadline: Deadline) -> list[Received]:
        self.waits.set()
        return super().receive(deadline)


def test_a_publish_that_fails_during_a_long_receive_ends_it_well_before_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fsdcore.messages.messenger._SENDING_SECONDS", 0.01)
    service = QueueService(LocalSettings(publishes_in_flight=2).limits(), visibility_timeout=30.0, clock=SYSTEM_CLOCK)
    address = Address(RUN, 0, 2)
    # Longer than a test may last.
    patience = Patience(3_600.0, SYSTEM_CLOCK.now() + 3_600.0, SYSTEM_CLOCK)
    mailbox = Mailbox(SYSTEM_CLOCK, RUN, 0, workers=2, batches=1, layers=3)
    messenger = Messenger(
        SlowlyRefusingChannel(service, address), address, mailbox, Recorder(SYSTEM_CLOCK, 0), patience
    )
    messenger.send(SLOT, [(1, make_body(b"lost"))])
    with pytest.raises(ChannelError, match="takes nothing"):
        messenger.receive(SLOT, 1)
    messenger.close()


def test_a_message_that_lies_ready_is_no_timeout(ends: Callable[[], Ends]) -> None:
    """Other batches may have been computed while the time of the wait went by."""
    pair = ends()
    other = Slot(DATA, 0, 2)
    pair.ends[0].send(other, [(1, Body(0, b""))])
    pair.ends[0].send(SLOT, [(1, make_body(b"ready"))])
    pair.ends[0].flush()
    over = Deadline(SYSTEM_CLOCK.now() - 1.0, SYSTEM_CLOCK)
    pair.ends[1].wait_any([Awaited(SLOT, 0, over)])
    assert pair.ends[1].receive(SLOT, 0) == make_body(b"ready")
    with pytest.raises(DeadlineError):
        pair.ends[1].wait_any([Awaited(Slot(DATA, 0, 3), 0, over)])
    for end in pair.ends:
        end.close()


@pytest.mark.parametrize("settings", [LocalSettings(), LocalSettings(background_receive=True)])
def test_who_waits_hears_that_the_run_is_over(settings: LocalSettings) -> None:
    store = MemoryStore()
    lease = take_lease(store, 60.0, SYSTEM_CLOCK)
    pair = Ends(settings)
    address, mailbox = Address(RUN, 1, 2), Mailbox(SYSTEM_CLOCK, RUN, 1, workers=2, batches=1, layers=3)
    patience = Patience(60.0, SYSTEM_CLOCK.now() + 60.0, SYSTEM_CLOCK)
    channel = LocalQueueChannel(pair.service, address)
    waits = Messenger(
        channel, address, mailbox, Recorder(SYSTEM_CLOCK, 1), patience, Watch(store, lease.key, SYSTEM_CLOCK)
    )
    threading.Timer(0.01, lease.end).start()
    with pytest.raises(AbortedError, match="the client has stopped the run"):
        waits.receive(SLOT, 0)
    waits.close()


@pytest.mark.parametrize("background", [False, True])
def test_what_comes_early_waits_in_the_queue_until_it_is_expected(background: bool) -> None:
    service = QueueService(
        LocalSettings(background_receive=background).limits(), visibility_timeout=30.0, clock=SYSTEM_CLOCK
    )
    patience = Patience(5.0, SYSTEM_CLOCK.now() + 60.0, SYSTEM_CLOCK)
    mailboxes = [Mailbox(SYSTEM_CLOCK, RUN, rank, workers=2, batches=1, layers=3, room=0) for rank in range(2)]
    first, second = (
        Messenger(
            LocalQueueChannel(service, Address(RUN, rank, 2)),
            Address(RUN, rank, 2),
            box,
            Recorder(SYSTEM_CLOCK, rank),
            patience,
        )
        for rank, box in enumerate(mailboxes)
    )
    slots = [Slot(DATA, 0, layer) for layer in (3, 2, 1)]
    for slot in slots:
        first.send(slot, [(1, make_body(b"%d" % slot.layer))])
    for slot in reversed(slots):
        second.expect(slot, [0])
        assert second.receive(slot, 0) == make_body(b"%d" % slot.layer)
        assert not any(mailboxes[1].ready(other, 0) for other in slots)
    first.close()
    second.close()
    assert service.queue(0, 1).purge() == 0


class _CountsReleases(LocalQueueChannel):
    released = 0

    def release(self, received: Sequence[Received]) -> None:
        self.released += len(received)
        super().release(received)


def test_what_comes_early_again_and_again_is_given_back_once() -> None:
    service = QueueService(LocalSettings().limits(), visibility_timeout=0.01, clock=SYSTEM_CLOCK)
    channel = _CountsReleases(service, Address(RUN, 1, 2))
    mailbox = Mailbox(SYSTEM_CLOCK, RUN, 1, workers=2, batches=1, layers=3, room=0)
    patience = Patience(0.1, SYSTEM_CLOCK.now() + 60.0, SYSTEM_CLOCK)
    with closing(Messenger(channel, Address(RUN, 1, 2), mailbox, Recorder(SYSTEM_CLOCK, 1), patience)) as messenger:
        early = Slot(DATA, 0, 2)
        sender = LocalQueueChannel(service, Address(RUN, 0, 2))
        sender.send([Outgoing(1, data) for data in build_frames(RUN, early, 0, 1, make_body(b"x"), 1 << 20)])
        messenger.expect(SLOT, [0])
        with pytest.raises(DeadlineError):
            messenger.receive(SLOT, 0)
        messenger.expect(early, [0])
        assert messenger.receive(early, 0) == make_body(b"x")
        assert channel.released == 1


@pytest.mark.parametrize("heard", [False, True])
def test_a_peer_that_may_be_starting_is_waited_for_until_the_end(heard: bool) -> None:
    clock = VirtualClock()
    patience = Patience(5.0, 300.0, clock, for_starts=True)
    channel = LocalQueueChannel(
        QueueService(LocalSettings().limits(), visibility_timeout=30.0, clock=SYSTEM_CLOCK), Address(RUN, 1, 2)
    )
    mailbox = Mailbox(SYSTEM_CLOCK, RUN, 1, workers=2, batches=1, layers=3)
    with closing(Messenger(channel, Address(RUN, 1, 2), mailbox, Recorder(SYSTEM_CLOCK, 1), patience)) as messenger:
        if heard:
            mailbox.add(build_frames(RUN, Slot(DATA, 0, 2), 0, 1, make_body(b"x"), 1 << 20))
        assert messenger.awaiting(SLOT, 0).deadline.at == (5.0 if heard else 300.0)


def test_what_never_came_before_the_time_was_up_is_told_so() -> None:
    service = QueueService(LocalSettings().limits(), visibility_timeout=30.0, clock=SYSTEM_CLOCK)
    patience = Patience(60.0, SYSTEM_CLOCK.now() + 0.1, for_starts=True, clock=SYSTEM_CLOCK)
    channel, mailbox = (
        LocalQueueChannel(service, Address(RUN, 1, 2)),
        Mailbox(SYSTEM_CLOCK, RUN, 1, workers=2, batches=1, layers=3),
    )
    told = pytest.raises(DeadlineError, match="nothing came from rank 0 before the time of the run was up")
    with (
        closing(Messenger(channel, Address(RUN, 1, 2), mailbox, Recorder(SYSTEM_CLOCK, 1), patience)) as messenger,
        told,
    ):
        messenger.receive(SLOT, 0)
