"""The S3 store, given answers that a server gives seldom: lost ones, conflicts, refusals, deletions in part."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import IncompleteReadError
from botocore.response import StreamingBody
from botocore.stub import ANY

from fsd_aws import store as module
from fsd_aws.errors import BucketMissingError
from fsd_aws.store import S3Store
from fsdcore.errors import AccessDeniedError, CredentialsError, FsdError, KeyMissingError, PreconditionError, StoreError
from fsdcore.testing.clock import VirtualClock
from tests.backends.aws.stubs import StubbedClients

BUCKET = "fsd-demo-123456789012-eu-west-1"


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubbedClients]:
    monkeypatch.setattr(module, "SYSTEM_CLOCK", VirtualClock())
    made = StubbedClients()
    yield made
    made.check()
    made.close()


@pytest.fixture
def store(clients: StubbedClients) -> S3Store:
    return S3Store(clients, BUCKET, "fsd destroy aws --name demo")


def body(data: bytes, length: int | None = None) -> dict[str, Any]:
    return {"Body": StreamingBody(io.BytesIO(data), len(data) if length is None else length)}


def test_a_create_whose_answer_was_lost_is_known_by_its_writer(
    clients: StubbedClients, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(int=7))
    clients.fails("s3", "put_object", "PreconditionFailed", 412, repeated=1)
    clients.answers("s3", "head_object", {"Metadata": {"writer": UUID(int=7).hex}})
    store.put("claim", b"", if_absent=True)


def test_a_repeated_create_that_another_won_is_refused(clients: StubbedClients, store: S3Store) -> None:
    clients.fails("s3", "put_object", "PreconditionFailed", 412, repeated=1)
    clients.answers("s3", "head_object", {"Metadata": {"writer": "another"}})
    with pytest.raises(PreconditionError, match="claim"):
        store.put("claim", b"", if_absent=True)


def test_a_create_that_was_not_repeated_needs_no_second_look(clients: StubbedClients, store: S3Store) -> None:
    clients.fails("s3", "put_object", "PreconditionFailed", 412)
    with pytest.raises(PreconditionError):
        store.put("claim", b"", if_absent=True)


def test_a_conflict_with_another_create_is_tried_again(clients: StubbedClients, store: S3Store) -> None:
    clients.fails("s3", "put_object", "ConditionalRequestConflict", 409)
    clients.answers("s3", "put_object", {}, Bucket=BUCKET, Key="claim", Body=b"", IfNoneMatch="*", Metadata=ANY)
    store.put("claim", b"", if_absent=True)


def test_a_conflict_that_stays_is_an_error(clients: StubbedClients, store: S3Store) -> None:
    for _ in range(4):
        clients.fails("s3", "put_object", "ConditionalRequestConflict", 409)
    with pytest.raises(StoreError, match="ConditionalRequestConflict"):
        store.put("claim", b"", if_absent=True)


def test_a_body_that_breaks_off_is_read_again(clients: StubbedClients, store: S3Store) -> None:
    clients.answers("s3", "get_object", body(b"da", 4))
    clients.answers("s3", "get_object", body(b"data"))
    assert store.get("k") == b"data"


def test_a_body_that_breaks_off_always_is_an_error(clients: StubbedClients, store: S3Store) -> None:
    for _ in range(4):
        clients.answers("s3", "get_object", body(b"da", 4))
    with pytest.raises(StoreError, match="'k'") as caught:
        store.get("k")
    assert isinstance(caught.value.__cause__, IncompleteReadError)


@pytest.mark.parametrize(
    ("code", "expected", "text"),
    [
        ("NoSuchKey", KeyMissingError, "no object at 'k'"),
        ("NoSuchBucket", BucketMissingError, f"bucket {BUCKET} is gone; run: fsd destroy aws --name demo"),
        ("AccessDenied", AccessDeniedError, "AWS refused"),
        ("ExpiredToken", CredentialsError, "have expired"),
        ("InternalError", StoreError, "reading 'k' in bucket"),
    ],
)
def test_each_refusal_is_its_own_error(
    clients: StubbedClients, store: S3Store, code: str, expected: type[FsdError], text: str
) -> None:
    clients.fails("s3", "get_object", code)
    with pytest.raises(FsdError, match=text) as caught:
        store.get("k")
    assert type(caught.value) is expected


@pytest.mark.parametrize(("error", "code"), [(BucketMissingError, 2), (CredentialsError, 2), (KeyMissingError, 1)])
def test_what_the_user_must_mend_ends_a_command_with_two(error: type[FsdError], code: int) -> None:
    assert error("text").exit_code == code


def test_keys_that_could_not_be_deleted_are_named_again(clients: StubbedClients, store: S3Store) -> None:
    failed = {"Errors": [{"Key": "b", "Code": "InternalError"}]}
    clients.answers("s3", "delete_objects", failed)
    again = {"Objects": [{"Key": "b"}], "Quiet": True}
    clients.answers("s3", "delete_objects", {}, Bucket=BUCKET, Delete=again)
    store.delete(["a", "b"])


@pytest.mark.parametrize(
    ("code", "kind", "times"), [("AccessDenied", AccessDeniedError, 1), ("SlowDown", StoreError, 4)]
)
def test_keys_that_cannot_be_deleted_are_an_error(
    clients: StubbedClients, store: S3Store, code: str, kind: type[StoreError], times: int
) -> None:
    for _ in range(times):
        clients.answers("s3", "delete_objects", {"Errors": [{"Key": "b", "Code": code}]})
    with pytest.raises(kind, match=f"1 objects were not deleted, the first 'b': {code}"):
        store.delete(["a", "b"])


def test_many_keys_are_deleted_a_thousand_at_a_time(clients: StubbedClients, store: S3Store) -> None:
    keys = [f"k{number}" for number in range(1_001)]
    for batch in (keys[:1_000], keys[1_000:]):
        request = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
        clients.answers("s3", "delete_objects", {}, Bucket=BUCKET, Delete=request)
    store.delete(keys)


def test_a_directory_bucket_is_listed_by_whole_folders(clients: StubbedClients) -> None:
    bucket = "fsd-demo-123456789012--use1-az4--x-s3"
    found = {"Contents": [{"Key": "runs/b"}, {"Key": "runs/ab"}, {"Key": "runs/aa"}]}
    clients.answers("s3", "list_objects_v2", found, Bucket=bucket, Prefix="runs/")
    assert S3Store(clients, bucket).list("runs/a") == ["runs/aa", "runs/ab"]
