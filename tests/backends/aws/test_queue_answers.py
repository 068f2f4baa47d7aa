"""The queue channels, given answers that a server gives seldom: entries that fail, and long waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsd_aws import errors as attempts
from fsd_aws import queue
from fsd_aws.deployment import Deployment
from fsd_aws.queue import SnsChannel, SqsChannel
from fsdcore.clock import Deadline, SystemClock
from fsdcore.contracts.channel import Address, Outgoing, Received
from fsdcore.errors import ChannelError, CredentialsError
from fsdcore.testing.clock import VirtualClock
from tests.backends.aws.stubs import StubbedClients, make_deployment

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/fsd-fsd--0-1"
ADDRESS = Address("0" * 16, 1, 4)
FRAMES = [Outgoing(2, b"first"), Outgoing(3, b"second")]


def entry(number: int, frame: bytes, target: int) -> dict[str, object]:
    return {
        "Id": str(number),
        "Message": "-",
        "MessageAttributes": {
            "target": {"DataType": "String", "StringValue": f"0-{target}"},
            "frame": {"DataType": "Binary", "BinaryValue": frame},
        },
    }


DONE: dict[str, object] = {"Successful": [], "Failed": []}


def refused(*ids: str, blame: bool = False) -> dict[str, object]:
    failed = [{"Id": number, "Code": "InternalError", "SenderFault": blame} for number in ids]
    return {"Successful": [], "Failed": failed}


class _Skipping(SystemClock):
    """Pauses take no time, in whatever thread: the backend deletes in one of its own."""

    def __init__(self) -> None:
        self._skipped = 0.0

    def now(self) -> float:
        return super().now() + self._skipped

    def sleep(self, seconds: float) -> None:
        self._skipped += seconds


@pytest.fixture
def deployment() -> Deployment:
    return make_deployment()


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubbedClients]:
    clock = _Skipping()
    monkeypatch.setattr(attempts, "SYSTEM_CLOCK", clock)
    monkeypatch.setattr(queue, "SYSTEM_CLOCK", clock)
    made = StubbedClients()
    yield made
    made.check()
    made.close()


@pytest.fixture
def channel(clients: StubbedClients, deployment: Deployment) -> Iterator[SnsChannel]:
    made = SnsChannel(clients, deployment, ADDRESS)
    yield made
    made.close()


def test_a_publish_goes_to_the_topic_of_its_rank(
    clients: StubbedClients, deployment: Deployment, channel: SnsChannel
) -> None:
    entries = [entry(0, b"first", 2), entry(1, b"second", 3)]
    clients.answers("sns", "publish_batch", DONE, TopicArn=deployment.topic_arn(1), PublishBatchRequestEntries=entries)
    channel.send(FRAMES)


def test_only_the_entries_that_failed_are_sent_again(
    clients: StubbedClients, deployment: Deployment, channel: SnsChannel
) -> None:
    counted: list[str] = []
    channel.observe(counted.append)
    clients.answers("sns", "publish_batch", refused("1"))
    again = [entry(1, b"second", 3)]
    clients.answers("sns", "publish_batch", DONE, TopicArn=deployment.topic_arn(1), PublishBatchRequestEntries=again)
    channel.send(FRAMES)
    assert counted == ["publishes"]


@pytest.mark.parametrize(("blame", "times"), [(True, 1), (False, 5)])
def test_entries_that_go_on_failing_are_an_error(
    clients: StubbedClients, channel: SnsChannel, blame: bool, times: int
) -> None:
    for _ in range(times):
        clients.answers("sns", "publish_batch", refused("0", "1", blame=blame))
    with pytest.raises(ChannelError, match="2 of 2 messages failed, InternalError"):
        channel.send(FRAMES)


def test_what_is_throttled_is_sent_again_whoever_is_blamed(clients: StubbedClients, channel: SnsChannel) -> None:
    throttled = {"Code": "Throttled", "SenderFault": True, "Message": "Rate exceeded"}
    for _ in range(12):
        clients.answers("sns", "publish_batch", {"Successful": [], "Failed": [{"Id": "1", **throttled}]})
    clients.fails("sns", "publish_batch", "ThrottlingException")
    clients.answers("sns", "publish_batch", DONE)
    channel.send(FRAMES)


def test_what_is_throttled_for_too_long_is_an_error_that_names_the_quota(
    clients: StubbedClients, deployment: Deployment
) -> None:
    throttled = {"Id": "0", "Code": "Throttled", "SenderFault": True, "Message": "Rate exceeded"}
    asked = 0

    def answer(**_: object) -> None:
        nonlocal asked
        asked += 1
        clients.answers("sns", "publish_batch", {"Successful": [], "Failed": [throttled]})

    answer()
    clients.client("sns").meta.events.register("after-call.sns.PublishBatch", answer)
    channel = SnsChannel(clients, deployment, Address("0" * 16, 1, 4, patience_seconds=20.0))
    with pytest.raises(ChannelError, match=r"Throttled: Rate exceeded; the quota .* for 20 s: ask for more in Service"):
        channel.send(FRAMES[:1])
    channel.close()
    assert 8 < asked < 40
    clients.client("sns").meta.events.unregister("after-call.sns.PublishBatch", answer)
    clients.forget("sns")


def test_a_throttled_receive_is_made_again_until_its_deadline(clients: StubbedClients, channel: SnsChannel) -> None:
    clients.fails("sqs", "receive_message", "RequestThrottled")
    frame = {"frame": {"DataType": "Binary", "BinaryValue": b"data"}}
    told = [{"Body": "-", "MessageAttributes": frame, "ReceiptHandle": "b"}]
    clients.answers("sqs", "receive_message", {"Messages": told})
    assert channel.receive(Deadline.after(30.0, VirtualClock())) == [Received(b"data", "b")]


def test_a_send_straight_to_the_queue_has_no_target(clients: StubbedClients, deployment: Deployment) -> None:
    frame = {"frame": {"DataType": "Binary", "BinaryValue": b"data"}}
    sent = [{"Id": "0", "MessageBody": "-", "MessageAttributes": frame}]
    clients.answers("sqs", "send_message_batch", DONE, QueueUrl=URL, Entries=sent)
    channel = SqsChannel(clients, deployment, Address("0" * 16, 0, 4))
    channel.send([Outgoing(1, b"data")])
    channel.close()


def test_a_long_wait_is_several_polls_of_whole_seconds(clients: StubbedClients, channel: SnsChannel) -> None:
    counted: list[str] = []
    channel.observe(counted.append)
    clock = VirtualClock()
    deadline = Deadline(clock.now() + 40.5, clock)
    asked = {"QueueUrl": URL, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["frame"]}
    client = clients.client("sqs")
    client.meta.events.register("before-parameter-build.sqs.ReceiveMessage", lambda **_: clock.sleep(20.0))
    for seconds in (20, 20, 1):
        clients.answers("sqs", "receive_message", {}, **asked, WaitTimeSeconds=seconds)
    assert channel.receive(deadline) == []
    assert counted == ["receives"] * 2


def test_messages_that_carry_no_frame_are_deleted_and_counted(clients: StubbedClients, channel: SnsChannel) -> None:
    counted: list[str] = []
    channel.observe(counted.append)
    frame = {"frame": {"DataType": "Binary", "BinaryValue": b"data"}}
    told = [
        {"Body": "hello from another program", "ReceiptHandle": "a"},
        {"Body": "-", "MessageAttributes": frame, "ReceiptHandle": "b"},
    ]
    clients.answers("sqs", "receive_message", {"Messages": told})
    gone = [{"Id": "0", "ReceiptHandle": "a"}]
    clients.answers("sqs", "delete_message_batch", DONE, QueueUrl=URL, Entries=gone)
    assert channel.receive(Deadline.after(0.0, VirtualClock())) == [Received(b"data", "b")]
    channel.close()
    assert counted == ["dropped"]


def test_deletions_that_failed_are_made_again(clients: StubbedClients, channel: SnsChannel) -> None:
    clients.answers("sqs", "delete_message_batch", refused("1"))
    again = [{"Id": "1", "ReceiptHandle": "b"}]
    clients.answers("sqs", "delete_message_batch", DONE, QueueUrl=URL, Entries=again)
    channel.acknowledge([Received(b"x", "a"), Received(b"y", "b")])
    channel.close()


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "MessageNotInflight"])
def test_a_delivery_that_came_again_need_not_be_deleted(
    clients: StubbedClients, channel: SnsChannel, code: str
) -> None:
    failed = [{"Id": "0", "Code": code, "SenderFault": True}]
    clients.answers("sqs", "delete_message_batch", {"Successful": [], "Failed": failed})
    channel.acknowledge([Received(b"x", "a")])
    clients.answers("sqs", "delete_message_batch", DONE)
    channel.acknowledge([Received(b"x", "b")])


def test_released_messages_are_made_visible_at_once(clients: StubbedClients, channel: SnsChannel) -> None:
    entries = [{"Id": "0", "ReceiptHandle": "a", "VisibilityTimeout": 0}]
    clients.answers("sqs", "change_message_visibility_batch", DONE, QueueUrl=URL, Entries=entries)
    channel.release([Received(b"x", "a")])


@pytest.mark.parametrize("code", ["MessageNotInflight", "InvalidParameterValue", "InternalError"])
def test_a_release_that_fails_leaves_the_message_to_its_time(
    clients: StubbedClients, channel: SnsChannel, code: str
) -> None:
    failed = [{"Id": "0", "Code": code, "SenderFault": True}]
    clients.answers("sqs", "change_message_visibility_batch", {"Successful": [], "Failed": failed})
    channel.release([Received(b"x", "a")])


def test_expired_credentials_are_told(clients: StubbedClients, channel: SnsChannel) -> None:
    clients.fails("sns", "publish_batch", "ExpiredToken")
    with pytest.raises(CredentialsError, match="have expired"):
        channel.send(FRAMES)


def test_both_kinds_of_channel_share_their_lanes(clients: StubbedClients, deployment: Deployment) -> None:
    pools = {kind(clients, deployment, ADDRESS).capabilities.lane_pool for kind in (SnsChannel, SqsChannel)}
    assert len(pools) == 1
    assert None not in pools
