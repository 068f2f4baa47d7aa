"""Local Cloud Storage by Google's own client: it works through the proxy, each call is logged, faults are as asked."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from google.api_core.exceptions import (
    Conflict,
    Forbidden,
    NotFound,
    PreconditionFailed,
    ServiceUnavailable,
    TooManyRequests,
)
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from fsd_emulators.gcp.calls import Call
from fsd_emulators.gcp.storage import StorageServer, kind_of
from fsdcore.faults import Delay, Disconnect, Fault, Refuse
from tests.backends.gcp.conftest import ABANDONS_SOCKETS

ONE_TRY: dict[str, Any] = {"retry": None, "timeout": 20.0}
QUICK_TRIES: dict[str, Any] = {"retry": DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.1), "timeout": 20.0}


@pytest.fixture
def bucket(cloud_storage: StorageServer) -> Iterator[Any]:
    """A new bucket; what its making took is not in the log."""
    client = storage.Client(
        project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": cloud_storage.url}
    )
    made = client.create_bucket(f"b-{uuid.uuid4().hex[:12]}")
    cloud_storage.log.clear()
    yield made
    client.close()


def calls_of_objects(server: StorageServer) -> list[Call]:
    """The client looks buckets up in a thread of its own, whenever it wants."""
    return [call for call in server.log if call.kind != "bucket"]


def test_a_bucket_lies_where_it_was_made(bucket: Any) -> None:
    assert bucket.location == "US"
    client = bucket.client
    made = client.create_bucket(f"b-{uuid.uuid4().hex[:12]}", location="europe-west1")
    (found,) = [one for one in client.list_buckets(prefix=made.name) if one.name == made.name]
    assert made.location == found.location == client.get_bucket(made.name).location == "EUROPE-WEST1"


def test_of_a_strangers_bucket_no_more_is_said_than_that_its_name_is_taken(
    cloud_storage: StorageServer, bucket: Any
) -> None:
    bucket.blob("k").upload_from_string(b"1")
    cloud_storage.foreign_buckets.add(bucket.name)
    client = bucket.client
    calls: list[Callable[[], object]] = [
        lambda: client.lookup_bucket(bucket.name),
        lambda: list(bucket.list_blobs()),
        bucket.patch,
        bucket.delete,
        bucket.blob("k").delete,
        lambda: bucket.blob("k").upload_from_string(b"2"),
    ]
    for call in calls:
        with pytest.raises(Forbidden, match="may not exist"):
            call()
    assert bucket.name not in [found.name for found in client.list_buckets()]
    with pytest.raises(Conflict):
        client.create_bucket(bucket.name)
    cloud_storage.foreign_buckets.clear()
    assert bucket.blob("k").download_as_bytes() == b"1"


def test_objects_come_back_whole_and_in_part(bucket: Any) -> None:
    bucket.blob("a/b").upload_from_string(b"0123456789")
    assert bucket.blob("a/b").download_as_bytes() == b"0123456789"
    assert bucket.blob("a/b").download_as_bytes(start=3, end=5) == b"345"


def test_lists_come_in_pages(cloud_storage: StorageServer, bucket: Any) -> None:
    for number in range(5):
        bucket.blob(f"a/{number}").upload_from_string(b"x")
    bucket.blob("b").upload_from_string(b"x")
    cloud_storage.log.clear()
    assert [blob.name for blob in bucket.list_blobs(prefix="a/", page_size=2)] == [f"a/{number}" for number in range(5)]
    assert cloud_storage.log.count("list") == 3


def test_only_the_first_of_two_creates(cloud_storage: StorageServer, bucket: Any) -> None:
    bucket.blob("k").upload_from_string(b"1", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        bucket.blob("k").upload_from_string(b"2", if_generation_match=0)
    assert bucket.blob("k").download_as_bytes() == b"1"
    assert cloud_storage.log.count("put", "412") == 1


def test_each_call_is_logged_once_with_its_key(cloud_storage: StorageServer, bucket: Any) -> None:
    key = 'dir/a "b" c'
    bucket.blob(key).upload_from_string(b"x" * 100)
    bucket.blob(key).download_as_bytes()
    bucket.blob(key).exists()
    list(bucket.list_blobs(prefix="dir/"))
    bucket.delete_blobs([bucket.blob(key)])
    with pytest.raises(NotFound):
        bucket.blob("none").download_as_bytes()
    calls = [(call.kind, call.resource, call.ended) for call in calls_of_objects(cloud_storage)]
    assert calls == [
        ("put", f"{bucket.name}/{key}", "OK"),
        ("get", f"{bucket.name}/{key}", "OK"),
        ("stat", f"{bucket.name}/{key}", "OK"),
        ("list", bucket.name, "OK"),
        ("delete", f"{bucket.name}/{key}", "OK"),
        ("get", f"{bucket.name}/none", "404"),
    ]
    assert cloud_storage.log.of("get") == [Call("get", f"{bucket.name}/{key}", 1, 100)]


def test_an_upload_in_parts_is_one_put(cloud_storage: StorageServer, bucket: Any) -> None:
    # Under 8 MiB the client sends it in one.
    part = 3 << 20
    bucket.blob("large", chunk_size=part).upload_from_string(bytes(3 * part))
    assert len(bucket.blob("large").download_as_bytes()) == 3 * part
    assert [call.kind for call in calls_of_objects(cloud_storage)] == ["put", "part", "part", "part", "get"]


@pytest.mark.parametrize(
    ("fault", "error", "ended"),
    [
        (Refuse(), ServiceUnavailable, "503"),
        (Refuse(error="RESOURCE_EXHAUSTED"), TooManyRequests, "429"),
        (Disconnect(), requests.ConnectionError, "RESET"),
    ],
)
def test_a_refused_put_has_no_effect(
    cloud_storage: StorageServer, bucket: Any, fault: Fault, error: type[Exception], ended: str
) -> None:
    cloud_storage.faults.set(fault)
    with pytest.raises(error):
        bucket.blob("k").upload_from_string(b"x", **ONE_TRY)
    assert cloud_storage.log.count("put", ended) == 1
    cloud_storage.faults.set()
    assert list(bucket.list_blobs()) == []


def test_a_put_whose_answer_is_lost_has_taken_effect(cloud_storage: StorageServer, bucket: Any) -> None:
    cloud_storage.faults.set(Disconnect(when="after"))
    with pytest.raises(requests.ConnectionError):
        bucket.blob("k").upload_from_string(b"x", **ONE_TRY)
    cloud_storage.faults.set()
    assert bucket.blob("k").download_as_bytes() == b"x"
    assert cloud_storage.log.count("put", "LOST") == 1


@ABANDONS_SOCKETS
def test_a_body_that_is_cut_short_is_noticed(
    cloud_storage: StorageServer, bucket: Any, abandoned_sockets: None
) -> None:
    data = bytes(range(256)) * 4096
    bucket.blob("k").upload_from_string(data)
    cloud_storage.faults.set(Disconnect("get", when="within"))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        bucket.blob("k").download_as_bytes(**ONE_TRY)
    assert cloud_storage.log.count("get", "CUT") == 1
    cloud_storage.faults.set()
    assert bucket.blob("k").download_as_bytes() == data


def test_a_create_retried_after_its_answer_was_lost_meets_itself(cloud_storage: StorageServer, bucket: Any) -> None:
    cloud_storage.faults.set(Disconnect("put", share=0.5, seed=2, when="after"))
    refused = 0
    for number in range(10):
        try:
            bucket.blob(f"k{number}").upload_from_string(b"x", if_generation_match=0, **QUICK_TRIES)
        except PreconditionFailed:
            refused += 1
    lost = cloud_storage.log.count("put", "LOST")
    assert 0 < refused <= lost
    cloud_storage.faults.set()
    assert len(list(bucket.list_blobs())) == 10


def test_a_late_request_is_answered_all_the_same(cloud_storage: StorageServer, bucket: Any) -> None:
    cloud_storage.faults.set(Delay(seconds=0.05))
    bucket.blob("k").upload_from_string(b"x", **ONE_TRY)
    assert cloud_storage.log.count("put") == 1
    cloud_storage.faults.set()
    assert bucket.blob("k").download_as_bytes() == b"x"


def test_faults_keep_to_the_keys_they_are_for(cloud_storage: StorageServer, bucket: Any) -> None:
    cloud_storage.faults.set(Refuse(about="/bad/"))
    bucket.blob("good/k").upload_from_string(b"x", **ONE_TRY)
    with pytest.raises(ServiceUnavailable):
        bucket.blob("bad/k").upload_from_string(b"x", **ONE_TRY)


@ABANDONS_SOCKETS
def test_the_client_retries_faults_away(cloud_storage: StorageServer, bucket: Any, abandoned_sockets: None) -> None:
    cloud_storage.faults.set(
        Refuse(share=0.2, seed=1), Refuse(share=0.1, seed=1, error="RESOURCE_EXHAUSTED"), Disconnect(share=0.1, seed=1)
    )
    keys = [f"k{number}" for number in range(10)]
    for key in keys:
        bucket.blob(key).upload_from_string(key.encode(), if_generation_match=0, **QUICK_TRIES)
    assert [bucket.blob(key).download_as_bytes(**QUICK_TRIES) for key in keys] == [key.encode() for key in keys]
    assert len(calls_of_objects(cloud_storage)) > 20


@pytest.mark.parametrize(
    ("method", "target", "kind", "resource"),
    [
        ("GET", "/storage/v1/b/bk/o/a%2Fb?alt=media", "get", "bk/a/b"),
        ("GET", "/download/storage/v1/b/bk/o/a%2Fb?alt=media", "get", "bk/a/b"),
        ("GET", "/storage/v1/b/bk/o/a?projection=noAcl", "stat", "bk/a"),
        ("GET", "/storage/v1/b/bk/o?prefix=a", "list", "bk"),
        ("DELETE", "/storage/v1/b/bk/o/a", "delete", "bk/a"),
        ("POST", "/upload/storage/v1/b/bk/o?uploadType=media&name=a%2Fb", "put", "bk/a/b"),
        ("PUT", "/upload/storage/v1/b/bk/o?uploadType=resumable&name=a&upload_id=1", "part", "bk/a"),
        ("POST", "/storage/v1/b?project=p", "bucket", "/storage/v1/b"),
        ("GET", "/storage/v1/b/bk", "bucket", "bk"),
    ],
)
def test_requests_are_told_apart_as_they_are_billed(method: str, target: str, kind: str, resource: str) -> None:
    assert kind_of(method, target) == (kind, resource)


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}], ids=str
)
def test_what_a_web_page_sends_is_refused(cloud_storage: StorageServer, bucket: Any, headers: dict[str, str]) -> None:
    bucket.blob("k").upload_from_string(b"1")
    before = len(list(cloud_storage.log))
    url = f"{cloud_storage.url}/storage/v1/b/{bucket.name}/o/k"
    assert requests.get(url, timeout=20.0).status_code == 200
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"):
        assert requests.request(method, url, headers=headers, data=b"x", timeout=20.0).status_code == 403
    assert len(list(cloud_storage.log)) == before + 1
    assert bucket.blob("k").download_as_bytes() == b"1"
