"""What any Pub/Sub server must do for the queue channel: ours, and Google's own emulator where it is installed.

The two differ in what `TestGoogleEmulator` overrides, and in nothing else that is tested here.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.api_core.exceptions import AlreadyExists, InvalidArgument, NotFound

from fsd_emulators.gcp.google import GooglePubsub
from fsd_emulators.gcp.pubsub import PubsubServer
from fsdcore.errors import MissingExtraError
from tests.backends.gcp.emulator.pubsub_clients import PROJECT, Pubsub

# Of the client: it warns of `return_immediately`, which these tests need for a look that does not wait.
pytestmark = pytest.mark.filterwarnings("ignore:The return_immediately flag:DeprecationWarning")


class PubsubTests:
    """The suite; `target` is where the server listens."""

    @pytest.fixture
    def pubsub_at(self, target: str) -> Iterator[Pubsub]:
        made = Pubsub(target)
        yield made
        made.close()

    def test_resources_can_be_found_again(self, pubsub_at: Pubsub) -> None:
        found = pubsub_at.subscriber.get_subscription(subscription=pubsub_at.subscription)
        assert (found.topic, found.ack_deadline_seconds) == (pubsub_at.topic, 10)
        assert pubsub_at.publisher.get_topic(topic=pubsub_at.topic).name == pubsub_at.topic
        assert pubsub_at.topic in [topic.name for topic in pubsub_at.publisher.list_topics(project=PROJECT)]
        listed = pubsub_at.subscriber.list_subscriptions(project=PROJECT)
        assert pubsub_at.subscription in [item.name for item in listed]
        attached = pubsub_at.publisher.list_topic_subscriptions(topic=pubsub_at.topic)
        assert list(attached) == [pubsub_at.subscription]

    def test_labels_are_kept(self, pubsub_at: Pubsub) -> None:
        name = f"{pubsub_at.topic}-labels"
        pubsub_at.publisher.create_topic(request={"name": name, "labels": {"fsd-deployment": "x"}})
        assert dict(pubsub_at.publisher.get_topic(topic=name).labels) == {"fsd-deployment": "x"}

    def test_lists_come_in_pages(self, pubsub_at: Pubsub) -> None:
        names = {f"{pubsub_at.subscription}-{number}" for number in range(5)}
        for name in names:
            pubsub_at.subscribe(name)
        pages = pubsub_at.publisher.list_topic_subscriptions(request={"topic": pubsub_at.topic, "page_size": 2}).pages
        sizes = [len(page.subscriptions) for page in pages]
        assert (max(sizes), sum(sizes)) == (2, 6)

    def test_what_is_there_cannot_be_made_again(self, pubsub_at: Pubsub) -> None:
        with pytest.raises(AlreadyExists):
            pubsub_at.publisher.create_topic(name=pubsub_at.topic)
        with pytest.raises(AlreadyExists):
            pubsub_at.subscribe(pubsub_at.subscription)

    @pytest.mark.parametrize("call", ["get_topic", "delete_topic", "publish"])
    def test_a_missing_topic_is_not_found(self, pubsub_at: Pubsub, call: str) -> None:
        messages: dict[str, Any] = {"messages": [{"data": b"x"}]} if call == "publish" else {}
        with pytest.raises(NotFound):
            getattr(pubsub_at.publisher, call)(request={"topic": f"{pubsub_at.topic}-none", **messages})

    @pytest.mark.parametrize("call", ["get_subscription", "delete_subscription", "pull", "acknowledge"])
    def test_a_missing_subscription_is_not_found(self, pubsub_at: Pubsub, call: str) -> None:
        fields: dict[str, dict[str, Any]] = {"pull": {"max_messages": 1}, "acknowledge": {"ack_ids": ["1"]}}
        more = fields.get(call, {})
        with pytest.raises(NotFound):
            getattr(pubsub_at.subscriber, call)(
                request={"subscription": f"{pubsub_at.subscription}-none", **more}, timeout=20.0
            )

    def test_a_subscription_needs_its_topic(self, pubsub_at: Pubsub) -> None:
        with pytest.raises(NotFound):
            pubsub_at.subscribe(f"{pubsub_at.subscription}-x", topic=f"{pubsub_at.topic}-none")

    @pytest.mark.parametrize("seconds", [9, 601])
    def test_an_ack_deadline_out_of_range_is_refused(self, pubsub_at: Pubsub, seconds: int) -> None:
        with pytest.raises(InvalidArgument):
            pubsub_at.subscribe(f"{pubsub_at.subscription}-x", ack_deadline_seconds=seconds)

    def test_what_is_published_is_pulled_as_it_was(self, pubsub_at: Pubsub) -> None:
        data = bytes(range(256))
        pubsub_at.publisher.publish(topic=pubsub_at.topic, messages=[{"data": data, "attributes": {"run": "r"}}])
        (received,) = pubsub_at.pull()
        assert (received.message.data, dict(received.message.attributes)) == (data, {"run": "r"})

    def test_ids_and_times_are_given_by_the_service(self, pubsub_at: Pubsub) -> None:
        ids = pubsub_at.publish(b"a", b"b")
        received = [*pubsub_at.pull(1), *pubsub_at.pull(1)]
        assert sorted(item.message.message_id for item in received) == sorted(set(ids))
        age = datetime.now(UTC) - received[0].message.publish_time
        assert abs(age) < timedelta(minutes=5)

    def test_a_thousand_messages_in_one_publish(self, pubsub_at: Pubsub) -> None:
        data = [f"{number:04d}".encode() for number in range(1000)]
        assert len(set(pubsub_at.publish(*data))) == 1000
        assert pubsub_at.pull_data(1000) == data

    def test_one_more_is_refused_as_a_whole(self, pubsub_at: Pubsub) -> None:
        with pytest.raises(InvalidArgument):
            pubsub_at.publish(*[b"x"] * 1001)
        assert pubsub_at.is_empty()

    def test_an_empty_message_is_refused(self, pubsub_at: Pubsub) -> None:
        with pytest.raises(InvalidArgument):
            pubsub_at.publish(b"")

    def test_an_empty_publish_is_refused(self, pubsub_at: Pubsub) -> None:
        with pytest.raises(InvalidArgument):
            pubsub_at.publish()

    def test_messages_near_the_limit_pass(self, pubsub_at: Pubsub) -> None:
        largest = bytes(9_990_000)
        pubsub_at.publish(largest)
        assert pubsub_at.pull_data(1) == [largest]

    def test_a_publish_over_ten_megabytes_is_refused(self, pubsub_at: Pubsub) -> None:
        with pytest.raises(InvalidArgument):
            pubsub_at.publish(bytes(5_100_000), bytes(5_100_000))
        assert pubsub_at.is_empty()

    def test_each_subscription_has_each_message(self, pubsub_at: Pubsub) -> None:
        other = f"{pubsub_at.subscription}-2"
        pubsub_at.subscribe(other)
        pubsub_at.publish(b"a", b"b")
        assert pubsub_at.pull_data(2) == pubsub_at.pull_data(2, other) == [b"a", b"b"]

    def test_what_was_published_before_is_not_delivered(self, pubsub_at: Pubsub) -> None:
        pubsub_at.publish(b"before")
        late = f"{pubsub_at.subscription}-late"
        pubsub_at.subscribe(late)
        pubsub_at.publish(b"after")
        assert pubsub_at.pull_data(1, late) == [b"after"]

    def test_a_pull_brings_no_more_than_asked(self, pubsub_at: Pubsub) -> None:
        pubsub_at.publish(*[b"x"] * 10)
        assert 1 <= len(pubsub_at.pull(3)) <= 3

    def test_a_pull_of_none_is_refused(self, pubsub_at: Pubsub) -> None:
        with pytest.raises(InvalidArgument):
            pubsub_at.pull(0)

    def test_a_waiting_pull_is_woken_by_a_publish(self, pubsub_at: Pubsub) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(pubsub_at.pull)
            pubsub_at.publish(b"x")
            assert [item.message.data for item in waiting.result(20.0)] == [b"x"]

    def test_what_is_held_is_hidden_and_comes_again_when_given_back(self, pubsub_at: Pubsub) -> None:
        pubsub_at.publish(b"x")
        first = pubsub_at.pull()
        assert pubsub_at.is_empty()
        pubsub_at.extend(first, 0)
        (second,) = pubsub_at.pull()
        assert second.message.message_id == first[0].message.message_id
        assert second.ack_id != first[0].ack_id

    def test_what_is_not_acknowledged_comes_again_after_its_deadline(self, pubsub_at: Pubsub) -> None:
        pubsub_at.publish(b"x", b"y")
        held = {item.message.data: item for item in [*pubsub_at.pull(1), *pubsub_at.pull(1)]}
        pubsub_at.acknowledge([held[b"y"]])
        (again,) = pubsub_at.pull(timeout=60.0)
        assert again.message.data == b"x"

    def test_what_is_acknowledged_is_gone(self, pubsub_at: Pubsub) -> None:
        pubsub_at.publish(b"x")
        held = pubsub_at.pull()
        pubsub_at.acknowledge(held)
        pubsub_at.extend(held, 0)
        assert pubsub_at.is_empty()

    def test_acknowledging_twice_does_no_harm(self, pubsub_at: Pubsub) -> None:
        pubsub_at.publish(b"x")
        held = pubsub_at.pull()
        pubsub_at.acknowledge(held)
        pubsub_at.acknowledge(held)

    @pytest.mark.parametrize("seconds", [-1, 601])
    def test_a_new_deadline_out_of_range_is_refused(self, pubsub_at: Pubsub, seconds: int) -> None:
        pubsub_at.publish(b"x")
        with pytest.raises(InvalidArgument):
            pubsub_at.extend(pubsub_at.pull(), seconds)

    def test_a_seek_to_now_purges(self, pubsub_at: Pubsub) -> None:
        pubsub_at.publish(b"held", b"waiting")
        held = pubsub_at.pull(1)
        now = datetime.now(UTC) + timedelta(seconds=1)
        pubsub_at.subscriber.seek(request={"subscription": pubsub_at.subscription, "time": now})
        pubsub_at.extend(held, 0)
        assert pubsub_at.is_empty()

    def test_a_subscription_outlives_its_topic(self, pubsub_at: Pubsub) -> None:
        pubsub_at.publish(b"x")
        pubsub_at.publisher.delete_topic(topic=pubsub_at.topic)
        found = pubsub_at.subscriber.get_subscription(subscription=pubsub_at.subscription)
        assert found.topic == "_deleted-topic_"
        assert pubsub_at.pull_data(1) == [b"x"]

    def test_a_stream_delivers_and_takes_acknowledgements(self, pubsub_at: Pubsub) -> None:
        stream = pubsub_at.stream()
        data: list[bytes] = []
        pubsub_at.publish(b"a", b"b")
        while len(data) < 2:
            received = stream.receive(1)
            data += [item.message.data for item in received]
            stream.acknowledge(received)
        assert stream.close() == []
        assert sorted(data) == [b"a", b"b"]
        assert pubsub_at.is_empty()

    def test_a_stream_keeps_to_its_flow_control(self, pubsub_at: Pubsub) -> None:
        pubsub_at.publish(*[b"x"] * 10)
        stream = pubsub_at.stream(max_outstanding_messages=3)
        held = stream.receive(3)
        assert len(held) == 3
        stream.acknowledge(held[:1])
        assert len(stream.receive(1)) == 1
        stream.cancel()

    def test_a_stream_of_a_missing_subscription_is_not_found(self, pubsub_at: Pubsub) -> None:
        with pytest.raises(NotFound):
            pubsub_at.stream(subscription=f"{pubsub_at.subscription}-none").receive(1)


class TestOwnServer(PubsubTests):
    @pytest.fixture
    def target(self, pubsub: PubsubServer) -> str:
        return pubsub.target


@pytest.fixture(scope="module")
def shuffled_target() -> Iterator[str]:
    with PubsubServer(seed=1) as server:
        yield server.target


class TestShuffledServer(PubsubTests):
    """The order of deliveries is nothing that a receiver may rely on."""

    @pytest.fixture
    def target(self, shuffled_target: str) -> str:
        return shuffled_target


@pytest.fixture(scope="module")
def google_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        server = GooglePubsub(tmp_path_factory.mktemp("google"))
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    with server:
        yield server.target


class TestGoogleEmulator(PubsubTests):
    """Google's emulator (0.8.20): laxer than the service in four points, which the overridden tests pin down."""

    @pytest.fixture
    def target(self, google_target: str) -> str:
        return google_target

    @pytest.mark.parametrize("seconds", [601])
    def test_an_ack_deadline_out_of_range_is_refused(self, pubsub_at: Pubsub, seconds: int) -> None:
        """It takes deadlines under 10 s, which the service does not."""
        super().test_an_ack_deadline_out_of_range_is_refused(pubsub_at, seconds)
        short = pubsub_at.subscribe(f"{pubsub_at.subscription}-short", ack_deadline_seconds=9)
        assert short.ack_deadline_seconds == 9

    def test_a_publish_over_ten_megabytes_is_refused(self, pubsub_at: Pubsub) -> None:
        """It takes them."""
        assert len(pubsub_at.publish(bytes(5_100_000), bytes(5_100_000))) == 2

    @pytest.mark.parametrize("seconds", [-1])
    def test_a_new_deadline_out_of_range_is_refused(self, pubsub_at: Pubsub, seconds: int) -> None:
        """It takes deadlines over 600 s, though only here and not for a subscription."""
        super().test_a_new_deadline_out_of_range_is_refused(pubsub_at, seconds)
        pubsub_at.publish(b"y")
        pubsub_at.extend(pubsub_at.pull(), 601)

    def test_a_stream_keeps_to_its_flow_control(self, pubsub_at: Pubsub) -> None:
        """It sends what there is, however much the receiver wants to hold."""
        pubsub_at.publish(*[b"x"] * 10)
        stream = pubsub_at.stream(max_outstanding_messages=3)
        assert len(stream.receive(4)) > 3
        stream.cancel()
