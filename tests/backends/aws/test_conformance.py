"""The contracts of the core, kept by S3, SNS and SQS over real sockets."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from fsd_aws.backend import AwsBackend
from fsd_aws.clients import Clients
from fsd_aws.errors import BucketMissingError
from fsd_aws.queue import SnsChannel
from fsd_aws.store import S3Store
from fsd_emulators.aws import LocalAws
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.contracts.channel import Address, Channel, Outgoing
from fsdcore.contracts.compute import Compute, new_run_id
from fsdcore.contracts.store import Store
from fsdcore.errors import KeyMissingError
from fsdcore.testing import BackendTests, ChannelTests, StoreTests
from fsdcore.testing.channels import Opener
from fsdcore.worker.threads import ThreadCompute
from tests.backends.aws.services import REGION, make_resources

_numbers = itertools.count()


@pytest.fixture(scope="module")
def clients(running_aws: LocalAws) -> Iterator[Clients]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in running_aws.environment.items():
            patch.setenv(name, value)
        made = Clients(REGION)
        yield made
        made.close()


class TestStore(StoreTests):
    @pytest.fixture
    def store(self, clients: Clients) -> Store:
        return S3Store(clients, make_resources(clients, 1, name=f"store{next(_numbers)}", topics=1).bucket)

    def peek(self, store: Store, key: str) -> bytes | None:
        assert isinstance(store, S3Store)
        s3 = store._clients.client("s3")
        try:
            return bytes(s3.get_object(Bucket=store._bucket, Key=key)["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None

    def test_a_bucket_that_is_gone_is_not_a_missing_key(self, clients: Clients) -> None:
        store = S3Store(clients, "fsd-gone", "fsd destroy aws --name gone")
        for call in (lambda: store.get("k"), lambda: store.put("k", b""), lambda: store.list("")):
            with pytest.raises(BucketMissingError, match="bucket fsd-gone is gone; run: fsd destroy aws --name gone"):
                call()

    def test_an_object_at_its_limits_of_one_read_is_there(self, store: Store) -> None:
        store.put("k", b"0123456789")
        assert store.get_range("k", 9, 1) == b"9"
        with pytest.raises(KeyMissingError):
            store.get_range("none", 5, 0)


class _OpenedTests(ChannelTests):
    kind = "queue"
    payload = "attribute"

    @pytest.fixture
    def opener(self, clients: Clients) -> Iterator[Opener]:
        name = f"channel{next(_numbers)}"
        deployment = make_resources(
            clients, 3, name=name, topics=2, lanes=2, visibility_timeout=1, payload=self.payload
        )
        backend = AwsBackend(deployment=deployment)
        opened: list[Channel] = []

        def open_channel(address: Address) -> Channel:
            opened.append(backend.open_channel(self.kind, address))
            return opened[-1]

        yield open_channel
        for channel in opened:
            channel.close()
        backend.close()

    def make_redelivery_due(self) -> None:
        # The services have a clock of their own.
        SYSTEM_CLOCK.sleep(1.1)


class _QueueTests(_OpenedTests):
    def test_what_is_purged_does_not_come(self, opener: Opener) -> None:
        run = new_run_id(SYSTEM_CLOCK)
        source, target = opener(Address(run, 0, 2)), opener(Address(run, 1, 2))
        source.send([Outgoing(1, self.frame(run, 0, 1, 1, b"old"))])
        arrived = Deadline.after(10.0, SYSTEM_CLOCK)
        while not (received := target.receive(arrived)):
            assert not arrived.passed()
        target.release(received)
        target.purge()
        assert target.receive(Deadline.after(1.0, SYSTEM_CLOCK)) == []

    def test_a_receive_waits_about_as_long_as_it_may(self, opener: Opener) -> None:
        target = opener(Address(new_run_id(SYSTEM_CLOCK), 1, 2))
        start = time.monotonic()
        assert target.receive(Deadline.after(0.2, SYSTEM_CLOCK)) == []
        assert time.monotonic() - start >= 0.2


class TestQueueChannel(_QueueTests):
    pass


class TestQueueChannelAsText(_QueueTests):
    payload = "text"


class TestSqsChannel(_QueueTests):
    kind = "sqs"


class TestSqsChannelAsText(_QueueTests):
    kind = "sqs"
    payload = "text"


class TestObjectChannel(_OpenedTests):
    kind = "object"


class _InProcess(AwsBackend):
    """Services of AWS, workers of this process."""

    def __init__(self, clients: Clients, name: str) -> None:
        deployment = make_resources(clients, 5, name=name, topics=2)
        super().__init__(deployment=deployment)
        self._threads = ThreadCompute(self)

    @property
    def compute(self) -> Compute:  # type: ignore[override]
        return self._threads

    def close(self) -> None:
        self._threads.close()
        super().close()


class TestServices(BackendTests):
    @pytest.fixture
    def backend(self, clients: Clients) -> Iterator[AwsBackend]:
        made = _InProcess(clients, f"backend{next(_numbers)}")
        yield made
        made.close()

    def test_nothing_waits_in_the_queues_after_a_run(self, clients: Clients, backend: AwsBackend) -> None:
        self.test_runs_agree_with_the_oracle_on_every_channel(backend, 5)
        deployment = backend.deployment
        for rank in range(5):
            channel = SnsChannel(clients, deployment, Address(new_run_id(SYSTEM_CLOCK), rank, 5))
            assert channel.receive(Deadline.after(0.0, SYSTEM_CLOCK)) == []
            channel.close()
