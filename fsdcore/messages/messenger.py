"""Messages over a channel: cut, packed, published; received, acknowledged, put together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import msgspec

from fsdcore.clock import Clock, Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received, Slot
from fsdcore.errors import DeadlineError, RunError, WireError
from fsdcore.messages.frames import ABORT, COLLECTIVE, Body, build_frames, make_body
from fsdcore.messages.mailbox import AbortNotice, Mailbox, Piece
from fsdcore.messages.packing import Packer, pack
from fsdcore.messages.publishing import Publishing
from fsdcore.record.record import BLOCK_BYTES
from fsdcore.record.recorder import Recorder
from fsdcore.turns import standing_aside

# One receive of a background thread lasts this long at most, so that it notices `close`.
_BACKGROUND_SECONDS = 0.5
# And so long while something has come early: it is asked for again once there is room.
_EARLY_SECONDS = 0.05
# A receive lasts this long at most while a send is under way: if that fails, nothing may ever come.
_SENDING_SECONDS = 5.0


class Patience(NamedTuple):
    """How long waits may last: `seconds` each, and none beyond `end` (monotonic seconds of `clock`).

    With `for_starts` those for a peer that has not been heard from yet may last until `end`.
    """

    seconds: float
    end: float
    clock: Clock
    for_starts: bool = False

    def deadline(self, heard: bool) -> Deadline:
        """For a wait that begins now, for a peer that has been heard from or not."""
        whole = self.for_starts and not heard
        return Deadline(self.end if whole else min(self.clock.now() + self.seconds, self.end), self.clock)


class Awaited(NamedTuple):
    """A message that is waited for, and until when."""

    slot: Slot
    source: int
    deadline: Deadline


def abort_frames(run: str, source: int, workers: int, notice: AbortNotice, max_frame_bytes: int) -> list[Outgoing]:
    """One abort frame for every rank but `source`."""
    short = msgspec.structs.replace(notice, message=notice.message[:500])
    body, slot = make_body(msgspec.json.encode(short)), Slot(ABORT, 0, 0)
    return [
        Outgoing(target, data)
        for target in range(workers)
        if target != source
        for data in build_frames(run, slot, source, target, body, max_frame_bytes)
    ]


class RunWatch(Protocol):
    """Sees whether the run goes on."""

    @property
    def interval(self) -> float:
        """Seconds between two looks."""

    def check(self) -> None:
        """Raises if the run is over; asks as often as it holds for right."""


class Messenger:
    """One rank's messages in one run.

    Sends are made by this thread, or by several if the channel wants several publishes in flight. Frames are received
    by whoever waits, or by a thread of their own if the channel wants it. What the channel raises in another thread
    stops the mailbox, and so is raised by the wait that this rank is in, or by the next. `watch` sees if the run goes
    on.
    """

    def __init__(
        self,
        channel: Channel,
        address: Address,
        mailbox: Mailbox,
        recorder: Recorder,
        patience: Patience,
        watch: RunWatch | None = None,
    ) -> None:
        self._channel, self._address, self._mailbox = channel, address, mailbox
        self._recorder, self._patience, self._watch = recorder, patience, watch
        limits, clock = channel.capabilities, patience.clock
        several = limits.publishes_in_flight > 1
        self._publishing = Publishing(clock, limits.publishes_in_flight, mailbox.stop) if several else None
        self._closing = False
        # What came before there was room for it, without its data: its size and latest delivery, for it comes again by
        # itself as well. The receiving thread's own.
        self._early: dict[Piece, tuple[int, Received]] = {}
        background = limits.background_receive
        self._receiver = clock.start(self._receive_in_background, "fsd-receive") if background else None

    def send(self, slot: Slot, parts: Iterable[tuple[int, Body]]) -> None:
        """Send one message to each target; with several publishes in flight, returns before they are all taken.

        `parts` may make each message when it is asked for: a publish leaves as soon as it is full.
        """
        limits, run, rank = self._channel.capabilities, self._address.run, self._address.rank
        packer = Packer(limits)
        for target, body in parts:
            cut = build_frames(run, slot, rank, target, body, limits.max_frame_bytes)
            for publish in packer.add(Outgoing(target, data) for data in cut):
                self._publish(publish)
            if slot.kind != COLLECTIVE:
                self._recorder.sent(target, len(body.data))
        for publish in packer.rest():
            self._publish(publish)

    def _publish(self, frames: Sequence[Outgoing]) -> None:
        self._recorder.add("publishes")
        self._recorder.add("frames", len(frames))
        self._recorder.add("bytes_sent", sum(len(frame.data) for frame in frames))
        counted = sum(self._channel.capabilities.publish_size(len(frame.data)) for frame in frames)
        self._recorder.add("blocks_sent", max(1, -(-counted // BLOCK_BYTES)))
        with self._recorder.timed("send"):
            if self._publishing is None:
                self._channel.send(frames)
                return
            self._publishing.check()
            self._publishing.submit(partial(self._channel.send, frames))

    def flush(self) -> None:
        """Wait until every message has been taken by the channel; raises what a publish raised."""
        if self._publishing is not None:
            with self._recorder.timed("send"), standing_aside():
                self._publishing.flush()

    def expect(self, slot: Slot, sources: Sequence[int]) -> None:
        """Tell the channel what will be waited for."""
        self._mailbox.expect(slot)
        self._channel.expect(slot, sources)

    def receive(self, slot: Slot, source: int) -> Body:
        """The message of `slot` from `source`.

        `DeadlineError` if it does not come in time, `AbortedError` if a peer failed first.
        """
        if not self._mailbox.ready(slot, source):
            self.wait_any([self.awaiting(slot, source)])
        return self._mailbox.take(slot, source)

    def take_ready(self, slot: Slot, source: int) -> Body | None:
        """The message if it has come; None if not. Raises `AbortedError` if a peer has failed."""
        return self._mailbox.poll(slot, source)

    def awaiting(self, slot: Slot, source: int) -> Awaited:
        """A wait for the message that begins now."""
        return Awaited(slot, source, self._patience.deadline(self._mailbox.heard_from(source)))

    def arrived(self, awaited: Awaited) -> bool:
        """Whether the message is there; raises like `receive`."""
        return self._mailbox.ready(awaited.slot, awaited.source)

    def wait_any(self, waits: Sequence[Awaited]) -> None:
        """Return once one of the messages is there; `DeadlineError` for the first wait whose time is over."""
        first = min(waits, key=lambda awaited: awaited.deadline.at)
        wanted = [(awaited.slot, awaited.source) for awaited in waits]
        with self._recorder.waiting(first.source, _place(first.slot)) as waiting:
            while True:
                until = self._watchful(first.deadline)
                if self._mailbox.any_ready(wanted):
                    break
                if not self._waited(wanted, until) and first.deadline.passed():
                    raise self._late(first)
                self._check_run()
            came = next(awaited for awaited in waits if self.arrived(awaited))
            waiting.ended_by(came.source, _place(came.slot))

    def _waited(self, wanted: Collection[tuple[Slot, int]], until: Deadline) -> bool:
        """Wait until `until` for what is wanted; whether anything came. What lies ready comes even after that time."""
        if self._receiver is None:
            return self._pump(until)
        one_receive = Deadline.after(_BACKGROUND_SECONDS, until.clock)
        with standing_aside():
            return self._mailbox.wait_any(wanted, max(until, one_receive, key=lambda each: each.at))

    def _watchful(self, deadline: Deadline) -> Deadline:
        """How long to wait before a look at the run and at the sends under way; raises what one of them has raised."""
        if self._watch is not None:
            deadline = deadline.sooner(self._watch.interval)
        if self._publishing is None:
            return deadline
        self._publishing.check()
        return deadline.sooner(_SENDING_SECONDS) if self._publishing.busy() else deadline

    def _late(self, awaited: Awaited) -> DeadlineError:
        slot, source = awaited.slot, awaited.source
        out_of_time = awaited.deadline.at >= self._patience.end
        when = "before the time of the run was up" if out_of_time else f"within {self._patience.seconds:g} s"
        return DeadlineError(f"nothing came from rank {source} {when}", peer=source, layer=slot.layer, batch=slot.batch)

    def _pump(self, deadline: Deadline) -> bool:
        """Receive once and put what came into the mailbox; whether anything came."""
        self._recall()
        with standing_aside():
            received = self._channel.receive(deadline)
        if received or not self._channel.capabilities.receives_on:
            self._recorder.add("receives")
        if received:
            self._take_in(received)
        return bool(received)

    def _take_in(self, received: Sequence[Received]) -> None:
        before = self._mailbox.dropped
        try:
            left = self._mailbox.add(item.data for item in received)
        except WireError:
            # Or it would come again, and end the next run of this lane as well.
            self._acknowledge(received)
            raise
        finally:
            self._recorder.add("dropped", self._mailbox.dropped - before)
        for position, piece in left.early.items():
            item = received[position]
            self._early[piece] = len(item.data), item._replace(data=b"")
        kept = {*left.younger, *left.early}
        self._acknowledge([item for position, item in enumerate(received) if position not in kept])
        if left.younger:
            self._channel.release([received[position] for position in left.younger])
            raise RunError("this run has outlived its lease: a younger run has its lane")

    def _recall(self) -> None:
        """Have deliveries that came too early made again, the first layers first, as far as there is room now."""
        wanted: list[Received] = []
        together = 0
        for piece in sorted(self._early):
            size, item = self._early[piece]
            if self._mailbox.has_room(piece.slot, together + size):
                del self._early[piece]
                wanted.append(item)
                together += size
        if wanted:
            self._channel.release(wanted)

    def _acknowledge(self, received: Sequence[Received]) -> None:
        if received:
            self._channel.acknowledge(received)
            self._recorder.add("acknowledges")

    def _receive_in_background(self) -> None:
        try:
            while not self._closing:
                seconds = _EARLY_SECONDS if self._early else _BACKGROUND_SECONDS
                self._pump(Deadline.after(seconds, self._patience.clock))
        except BaseException as error:  # noqa: BLE001 - raised by the wait that this rank is in
            self._mailbox.stop(error)

    def check(self) -> None:
        """Raise `AbortedError` if a peer is known to have failed, or the run to be over."""
        self._mailbox.check()
        self._check_run()

    def _check_run(self) -> None:
        if self._watch is not None:
            self._watch.check()

    def abort(self, notice: AbortNotice) -> None:
        """Tell every other rank to stop."""
        limits = self._channel.capabilities
        address = self._address
        frames = abort_frames(address.run, address.rank, address.workers, notice, limits.max_frame_bytes)
        for publish in pack(frames, limits):
            self._channel.send(publish)

    def finish(self, batch: int) -> None:
        """The batch is done: its messages need no longer be remembered."""
        self._mailbox.finish(batch)

    def close(self) -> None:
        """Stop the threads and close the channel."""
        self._closing = True
        with standing_aside():
            if self._publishing is not None:
                self._publishing.close()
            if self._receiver is not None:
                self._receiver.join()
        self._channel.close()


def _place(slot: Slot) -> tuple[int, int]:
    """The batch and layer that a wait for `slot` is for."""
    return (-1, 0) if slot.kind == COLLECTIVE else (slot.batch, slot.layer)
