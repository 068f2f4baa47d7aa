"""The store on Cloud Storage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from fsd_emulators.gcp.storage import StorageServer
from fsd_gcp.store import GcsStore
from fsdcore.contracts.channel import Address, Channel
from fsdcore.errors import DeploymentMissingError, KeyMissingError, PreconditionError, StoreError
from fsdcore.faults import Disconnect, Refuse
from fsdcore.messages.object_channel import ObjectChannel
from fsdcore.testing import ChannelTests, StoreTests
from fsdcore.testing.channels import Opener
from tests.backends.gcp.conftest import ABANDONS_SOCKETS

_NUMBERS = itertools.count()


@pytest.fixture
def client(cloud_storage: StorageServer) -> Iterator[storage.Client]:
    options = {"api_endpoint": cloud_storage.url}
    made = storage.Client(project="local", credentials=AnonymousCredentials(), client_options=options)
    yield made
    made.close()


@pytest.fixture
def store(client: storage.Client, cloud_storage: StorageServer) -> GcsStore:
    bucket = f"store-{next(_NUMBERS)}"
    client.create_bucket(bucket)
    cloud_storage.log.clear()
    return GcsStore(client, bucket)


class TestGcsStore(StoreTests):
    @pytest.fixture
    def store(self, store: GcsStore) -> GcsStore:
        return store


class TestObjectChannel(ChannelTests):
    @pytest.fixture
    def opener(self, store: GcsStore) -> Opener:
        def open_channel(address: Address) -> Channel:
            return ObjectChannel(store, address)

        return open_channel


def test_every_call_is_one_request(store: GcsStore, cloud_storage: StorageServer) -> None:
    store.put("k", b"0123456789")
    store.put("once", b"x", if_absent=True)
    store.get("k")
    store.get_range("k", 2, 3)
    store.get_range("k", 10, 3)
    store.list("")
    log = cloud_storage.log
    assert {verb: log.count(verb, ended=None) for verb in ("put", "get", "list")} == {"put": 2, "get": 3, "list": 1}


def test_a_missing_bucket_is_told_from_a_missing_object(client: storage.Client) -> None:
    store = GcsStore(client, "never-made")
    for call in (lambda: store.put("k", b""), lambda: store.list(""), lambda: store.put("k", b"", if_absent=True)):
        with pytest.raises(DeploymentMissingError, match=r"never-made.*fsd deploy gcp") as caught:
            call()
        assert caught.value.exit_code == 2
        assert isinstance(caught.value, StoreError)


def test_missing_objects_are_not_retried(store: GcsStore, cloud_storage: StorageServer) -> None:
    with pytest.raises(KeyMissingError):
        store.get("k")
    assert cloud_storage.log.count("get", ended=None) == 1


@ABANDONS_SOCKETS
@pytest.mark.usefixtures("abandoned_sockets")
def test_a_refusal_that_is_cut_short_is_asked_for_again(store: GcsStore, cloud_storage: StorageServer) -> None:
    cloud_storage.faults.set(Disconnect("get", share=0.5, seed=3, when="within"))
    for number in range(6):
        with pytest.raises(KeyMissingError):
            store.get(f"none/{number}")
    assert cloud_storage.log.count("get", "CUT") > 0


def test_large_objects_come_back(store: GcsStore) -> None:
    data = bytes(range(256)) * 40_000
    store.put("large", data)
    assert store.get("large") == data
    assert store.get_range("large", 10_000_000, 100) == data[10_000_000:10_000_100]


def test_a_second_writer_is_refused_without_a_look_at_the_object(store: GcsStore, cloud_storage: StorageServer) -> None:
    store.put("k", b"first", if_absent=True)
    with pytest.raises(PreconditionError):
        store.put("k", b"second", if_absent=True)
    assert cloud_storage.log.count("get") == 0


def test_a_create_whose_answer_was_lost_is_known_again(store: GcsStore, cloud_storage: StorageServer) -> None:
    cloud_storage.faults.set(Disconnect("put", share=0.3, seed=1, when="after"))
    for number in range(6):
        store.put(f"k/{number}", b"mine", if_absent=True)
        with pytest.raises(PreconditionError):
            store.put(f"k/{number}", b"another's", if_absent=True)
    assert cloud_storage.log.count("put", ended=None) > 12
    cloud_storage.faults.set()
    assert {store.get(key) for key in store.list("k/")} == {b"mine"}


@ABANDONS_SOCKETS
@pytest.mark.usefixtures("abandoned_sockets")
def test_what_fails_for_a_moment_is_repeated(store: GcsStore, cloud_storage: StorageServer) -> None:
    cloud_storage.faults.set(
        Refuse(share=0.2, seed=2),
        Refuse(share=0.1, seed=2, error="RESOURCE_EXHAUSTED"),
        Disconnect(share=0.1, seed=2),
        Disconnect(share=0.1, seed=2, when="within"),
    )
    for number in range(10):
        store.put(f"k/{number}", bytes([number]) * 1_000)
        assert store.get(f"k/{number}") == bytes([number]) * 1_000
        assert store.get_range(f"k/{number}", 10, 5) == bytes([number]) * 5
    assert len(store.list("k/")) == 10
    store.delete(store.list("k/"))
    assert store.list("k/") == []
