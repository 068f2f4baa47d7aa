"""Packing frames into publishes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdcore.contracts.channel import Outgoing
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.errors import FrameTooLargeError
from fsdcore.messages.packing import Packer, check_publish, pack

frames = st.lists(st.builds(Outgoing, st.integers(0, 4), st.binary(min_size=1, max_size=100)), max_size=40)
limits = st.builds(
    ChannelCapabilities,
    max_frame_bytes=st.just(100),
    max_publish_frames=st.integers(1, 10),
    max_publish_bytes=st.integers(110, 300),
    frame_overhead_bytes=st.integers(0, 10),
    multi_target=st.booleans(),
)


@given(frames, limits)
def test_every_frame_is_in_one_publish_within_the_limits(
    given_frames: list[Outgoing], capabilities: ChannelCapabilities
) -> None:
    publishes = pack(given_frames, capabilities)
    for publish in publishes:
        check_publish(publish, capabilities)
    assert sorted(frame for publish in publishes for frame in publish) == sorted(given_frames)


def test_frames_for_several_targets_share_a_publish() -> None:
    capabilities = ChannelCapabilities(max_frame_bytes=100, max_publish_frames=10, max_publish_bytes=1_000)
    assert len(pack([Outgoing(target, b"x" * 90) for target in range(10)], capabilities)) == 1


@pytest.mark.parametrize(
    ("publish", "message"),
    [
        ([Outgoing(0, b"x" * 11)], "a frame of 11"),
        ([Outgoing(0, b"x")] * 3, "3 frames"),
        ([Outgoing(0, b"x" * 10)] * 2, "a publish of 20"),
        ([Outgoing(0, b"x"), Outgoing(1, b"x")], "several ranks"),
    ],
)
def test_a_breach_names_the_limit(publish: list[Outgoing], message: str) -> None:
    capabilities = ChannelCapabilities(
        max_frame_bytes=10, max_publish_frames=2, max_publish_bytes=15, multi_target=False
    )
    with pytest.raises(FrameTooLargeError, match=message):
        check_publish(publish, capabilities)


@given(frames, limits)
def test_packing_as_messages_come_keeps_every_frame_and_the_limits(
    given_frames: list[Outgoing], capabilities: ChannelCapabilities
) -> None:
    packer = Packer(capabilities)
    publishes = [publish for frame in given_frames for publish in packer.add([frame])]
    for publish in publishes:
        check_publish(publish, capabilities)
        assert len(publish) == capabilities.max_publish_frames or not capabilities.multi_target
    publishes += packer.rest()
    assert sorted(frame for publish in publishes for frame in publish) == sorted(given_frames)
    assert list(packer.rest()) == []


def test_a_publish_leaves_as_soon_as_it_is_full() -> None:
    capabilities = ChannelCapabilities(max_frame_bytes=100, max_publish_frames=2, max_publish_bytes=1_000)
    packer = Packer(capabilities)
    assert list(packer.add([Outgoing(0, b"a")])) == []
    assert list(packer.add([Outgoing(1, b"b")])) == [[Outgoing(0, b"a"), Outgoing(1, b"b")]]
    assert list(packer.add([Outgoing(2, b"c")])) == []
    assert list(packer.rest()) == [[Outgoing(2, b"c")]]
