"""The store on Cloud Storage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from backends.gcp.emulator.storage import StorageFaults, StorageServer
from backends.gcp.store import GcsStore
from fsdcore.channel import Address, Channel
from fsdcore.errors import DeploymentMissingError, KeyMissingError, PreconditionError, StoreError
from fsdcore.object_channel import ObjectChannel
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
def gcs(client: storage.Client, cloud_storage: StorageServer) -> GcsStore:
    bucket = f"store-{next(_NUMBERS)}"
    client.create_bucket(bucket)
    cloud_storage.log.clear()
    return GcsStore(client, bucket)


class TestGcsStore(StoreTests):
    @pytest.fixture
    def store(self, gcs: GcsStore) -> GcsStore:
        return gcs


class TestObjectChannel(ChannelTests):
    @pytest.fixture
    def opener(self, gcs: GcsStore) -> Opener:
        def open_channel(address: Address) -> Channel:
            return ObjectChannel(gcs, address)

        return open_channel


def test_every_call_is_one_request(gcs: GcsStore, cloud_storage: StorageServer) -> None:
    gcs.put("k", b"0123456789")
    gcs.put("once", b"x", if_absent=True)
    gcs.get("k")
    gcs.get_range("k", 2, 3)
    gcs.get_range("k", 10, 3)
    gcs.list("")
    log = cloud_storage.log
    assert {verb: log.count(verb, None) for verb in ("put", "get", "list")} == {"put": 2, "get": 3, "list": 1}


def test_a_missing_bucket_is_told_from_a_missing_object(client: storage.Client) -> None:
    gcs = GcsStore(client, "never-made")
    for call in (lambda: gcs.put("k", b""), lambda: gcs.list(""), lambda: gcs.put("k", b"", if_absent=True)):
        with pytest.raises(DeploymentMissingError, match=r"never-made.*fsd deploy gcp") as caught:
            call()
        assert caught.value.exit_code == 2
        assert isinstance(caught.value, StoreError)


def test_missing_objects_are_not_retried(gcs: GcsStore, cloud_storage: StorageServer) -> None:
    with pytest.raises(KeyMissingError):
        gcs.get("k")
    assert cloud_storage.log.count("get", None) == 1


def test_large_objects_come_back(gcs: GcsStore) -> None:
    data = bytes(range(256)) * 40_000
    gcs.put("large", data)
    assert gcs.get("large") == data
    assert gcs.get_range("large", 10_000_000, 100) == data[10_000_000:10_000_100]


@pytest.mark.parametrize("seed", range(4))
def test_a_write_whose_answer_was_lost_knows_its_own_object(
    gcs: GcsStore, cloud_storage: StorageServer, seed: int
) -> None:
    cloud_storage.faults = StorageFaults(seed=seed, lost_response=0.4, kinds=("put",))
    for number in range(6):
        gcs.put(f"k{number}", b"mine", if_absent=True)
    with pytest.raises(PreconditionError):
        gcs.put("k0", b"another's", if_absent=True)
    assert gcs.get("k0") == b"mine"


@ABANDONS_SOCKETS
@pytest.mark.usefixtures("abandoned_sockets")
def test_a_service_that_stumbles_is_asked_again(gcs: GcsStore, cloud_storage: StorageServer) -> None:
    cloud_storage.faults = StorageFaults(unavailable=0.2, throttled=0.1, reset=0.1)
    for number in range(6):
        gcs.put(f"k{number}", b"data")
        assert gcs.get_range(f"k{number}", 1, 2) == b"at"
    assert len(gcs.list("k")) == 6
    gcs.delete(gcs.list("k"))
    assert gcs.list("k") == []
