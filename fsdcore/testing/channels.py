"""What every channel must do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import pytest

from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing, Received, Slot
from fsdcore.contracts.compute import new_run_id
from fsdcore.errors import FrameTooLargeError
from fsdcore.messages.frames import DATA, HEADER_BYTES, Body, build_frames

Opener: TypeAlias = Callable[[Address], Channel]

_PATIENCE = 20.0
_SILENCE = 0.3
_PLAIN = 1


class ChannelTests:
    """Subclass this, and give the fixture `opener`: opens endpoints of one deployment for three ranks or more.

    Where the channels go by another `clock` than that of the machine, set it: in virtual time no silence is waited out.
    `make_redelivery_due` is called after frames were received and not acknowledged, before they are looked for again:
    override it to move a clock; the default waits for the service.
    """

    clock: Clock = SYSTEM_CLOCK

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError("give the suite a fixture named opener")

    def make_redelivery_due(self) -> None:
        """Let the time pass after which frames come again."""

    def frame(self, run: str, source: int, target: int, layer: int, payload: bytes) -> bytes:
        """A sound frame."""
        body = Body(_PLAIN, payload or b"\0")
        (frame,) = build_frames(run, Slot(DATA, 0, layer), source, target, body, 1 << 40)
        return frame

    def collect(self, channel: Channel, count: int, seconds: float = _PATIENCE) -> list[Received]:
        """Receive and acknowledge until `count` different frames have come, or time is over."""
        deadline, found = Deadline.after(seconds, self.clock), dict[bytes, Received]()
        while len(found) < count and not deadline.passed():
            received = channel.receive(deadline)
            channel.acknowledge(received)
            found |= {item.data: item for item in received}
        return list(found.values())

    def expect(self, channel: Channel, layers: Iterable[int], sources: Iterable[int]) -> None:
        """Name the slots that will be received."""
        for layer in layers:
            channel.expect(Slot(DATA, 0, layer), list(sources))

    def test_frames_arrive_unaltered_at_the_rank_they_are_for(self, opener: Opener) -> None:
        run = new_run_id(self.clock)
        ends = [opener(Address(run, rank, 3)) for rank in range(3)]
        frames = {
            target: [self.frame(run, 0, target, layer, bytes(range(256)) * target) for layer in (1, 2)]
            for target in (1, 2)
        }
        for layer in (0, 1):
            publish = [Outgoing(target, frames[target][layer]) for target in (1, 2)]
            if ends[0].capabilities.multi_target:
                ends[0].send(publish)
            else:
                for frame in publish:
                    ends[0].send([frame])
        for target in (1, 2):
            self.expect(ends[target], (1, 2), [0])
            assert sorted(item.data for item in self.collect(ends[target], 2)) == sorted(frames[target])

    def test_a_receive_with_nothing_to_come_ends_at_its_deadline(self, opener: Opener) -> None:
        channel = opener(Address(new_run_id(self.clock), 0, 2))
        self.expect(channel, [1], [1])
        assert channel.receive(Deadline.after(_SILENCE, self.clock)) == []

    def test_a_message_may_come_in_several_publishes(self, opener: Opener) -> None:
        run = new_run_id(self.clock)
        source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
        body = Body(_PLAIN, bytes(range(256)))
        pieces = list(build_frames(run, Slot(DATA, 0, 1), 0, 1, body, HEADER_BYTES + 100))
        self.expect(target, [1], [0])
        for piece in pieces:
            source.send([Outgoing(1, piece)])
        assert sorted(item.data for item in self.collect(target, len(pieces))) == sorted(pieces)

    def test_acknowledged_frames_do_not_come_again(self, opener: Opener) -> None:
        run = new_run_id(self.clock)
        source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
        source.send([Outgoing(1, self.frame(run, 0, 1, 1, b"once"))])
        self.expect(target, [1], [0])
        assert len(self.collect(target, 1)) == 1
        self.make_redelivery_due()
        assert target.receive(Deadline.after(_SILENCE, self.clock)) == []

    def test_frames_not_acknowledged_come_again(self, opener: Opener) -> None:
        run = new_run_id(self.clock)
        source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
        if not target.capabilities.redelivers:
            pytest.skip("the channel does not redeliver")
        data = self.frame(run, 0, 1, 1, b"again")
        source.send([Outgoing(1, data)])
        deadline = Deadline.after(_PATIENCE, self.clock)
        while not target.receive(deadline):
            assert not deadline.passed()
        self.make_redelivery_due()
        assert [item.data for item in self.collect(target, 1)] == [data]

    def test_released_frames_come_again(self, opener: Opener) -> None:
        run = new_run_id(self.clock)
        source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
        if not target.capabilities.redelivers:
            pytest.skip("the channel does not redeliver")
        data = self.frame(run, 0, 1, 1, b"not mine")
        source.send([Outgoing(1, data)])
        deadline = Deadline.after(_PATIENCE, self.clock)
        while not (received := target.receive(deadline)):
            assert not deadline.passed()
        target.release(received)
        if not target.capabilities.releases:
            self.make_redelivery_due()
        assert [item.data for item in self.collect(target, 1)] == [data]

    def test_publishes_at_the_limits_pass(self, opener: Opener) -> None:
        run = new_run_id(self.clock)
        source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
        limits = source.capabilities
        if limits.max_frame_bytes > 1 << 24:
            pytest.skip("the limits are beyond what a test should send")
        room = limits.max_publish_bytes - limits.frame_overhead_bytes
        payload = bytes(min(limits.max_frame_bytes, room) - HEADER_BYTES)
        many = [self.frame(run, 0, 1, layer, b"x") for layer in range(2, 2 + limits.max_publish_frames)]
        source.send([Outgoing(1, self.frame(run, 0, 1, 1, payload))])
        source.send([Outgoing(1, data) for data in many])
        self.expect(target, range(1, 2 + len(many)), [0])
        assert len(self.collect(target, 1 + len(many))) == 1 + len(many)

    def test_a_breach_of_the_limits_is_refused_and_nothing_is_sent(self, opener: Opener) -> None:
        run = new_run_id(self.clock)
        source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
        limits = source.capabilities
        if limits.max_frame_bytes > 1 << 24:
            pytest.skip("the limits are beyond what a test should send")
        small = self.frame(run, 0, 1, 1, b"small")
        for publish in ([small] * (limits.max_publish_frames + 1), [small, bytes(limits.max_frame_bytes + 1)]):
            with pytest.raises(FrameTooLargeError):
                source.send([Outgoing(1, data) for data in publish])
        assert target.receive(Deadline.after(_SILENCE, self.clock)) == []

    def test_sends_from_many_threads_all_arrive(self, opener: Opener) -> None:
        run = new_run_id(self.clock)
        source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
        frames = [self.frame(run, 0, 1, layer, b"%d" % layer) for layer in range(1, 41)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda data: source.send([Outgoing(1, data)]), frames))
        self.expect(target, range(1, 41), [0])
        assert sorted(item.data for item in self.collect(target, 40)) == sorted(frames)

    def test_runs_on_different_lanes_do_not_mix(self, opener: Opener) -> None:
        runs = [new_run_id(self.clock), new_run_id(self.clock)]
        for lane, run in enumerate(runs):
            opener(Address(run, 0, 2, lane)).send([Outgoing(1, self.frame(run, 0, 1, 1, run.encode()))])
        for lane, run in enumerate(runs):
            target = opener(Address(run, 1, 2, lane))
            self.expect(target, [1], [0])
            assert [item.data for item in self.collect(target, 1)] == [self.frame(run, 0, 1, 1, run.encode())]
            assert target.receive(Deadline.after(_SILENCE, self.clock)) == []

    def test_closing_twice_is_harmless(self, opener: Opener) -> None:
        channel = opener(Address(new_run_id(self.clock), 0, 1))
        channel.close()
        channel.close()
