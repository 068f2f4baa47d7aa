"""Objects in an S3 bucket, of either kind: general purpose, or a directory bucket (S3 Express One Zone)."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import botocore.exceptions as sdk

from fsd_aws.clients import Clients
from fsd_aws.errors import BucketMissingError, error_code, translate
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.contracts.limits import StoreCapabilities
from fsdcore.contracts.store import Store, check_key
from fsdcore.errors import AccessDeniedError, KeyMissingError, PreconditionError, StoreError

_CAPABILITIES = StoreCapabilities(max_object_bytes=5 << 30, latency_seconds=0.02)
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_OUT_OF_RANGE = frozenset({"416", "InvalidRange", "RequestedRangeNotSatisfiable"})
# Another conditional write of the key was under way: who won is not known yet.
_CONFLICT = frozenset({"409", "ConditionalRequestConflict"})
_EXISTS = frozenset({"412", "PreconditionFailed"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_WRITER = "writer"
_ATTEMPTS, _PAUSE_SECONDS = 4, 0.1
_DELETED_AT_ONCE = 1_000

_Answer = TypeVar("_Answer")


class S3Store(Store):
    """The objects of `bucket`. The SDK repeats what was throttled or lost; a body that breaks off is read again.

    The clients are shared and stay open when the store closes.
    """

    def __init__(self, clients: Clients, bucket: str, remake: str = "fsd destroy aws, then: fsd deploy aws") -> None:
        self._clients, self._bucket, self._remake = clients, bucket, remake
        self._directory = bucket.endswith("--x-s3")

    @property
    def capabilities(self) -> StoreCapabilities:
        """Objects up to 5 GiB, what one `PutObject` takes; a small request takes about 20 ms."""
        return _CAPABILITIES

    @property
    def _s3(self) -> Any:
        return self._clients.client("s3")

    def _call(self, doing: str, key: str, call: Callable[[], _Answer]) -> _Answer:
        """The answer of `call`, or the framework's error for what went wrong."""
        try:
            return call()
        except sdk.ClientError as error:
            code = error_code(error)
            if code == "NoSuchBucket":
                raise BucketMissingError(f"bucket {self._bucket} is gone; run: {self._remake}") from error
            if code in _MISSING:
                raise KeyMissingError(f"there is no object at {key!r}") from error
            raise translate(error, f"{doing} {key!r} in bucket {self._bucket}", StoreError) from error
        except sdk.BotoCoreError as error:
            raise translate(error, f"{doing} {key!r} in bucket {self._bucket}", StoreError) from error

    # Writing

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        """One `PutObject`; `if_absent` makes it conditional (``If-None-Match``).

        A conditional write that the SDK had to retry marks its object, and so recognizes one that it wrote itself.
        """
        check_key(key)
        if if_absent:
            self._call("creating", key, lambda: self._create(key, data))
        else:
            self._call("writing", key, lambda: self._s3.put_object(Bucket=self._bucket, Key=key, Body=data))

    def _create(self, key: str, data: bytes) -> None:
        writer, doubtful = uuid.uuid4().hex, False
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._s3.put_object(
                    Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={_WRITER: writer}
                )
                return
            except sdk.ClientError as error:
                doubtful = doubtful or _was_repeated(error)
                if error_code(error) in _EXISTS:
                    if doubtful and self._written_by(key, writer):
                        return
                    raise PreconditionError(f"there is an object at {key!r} already") from error
                if error_code(error) not in _CONFLICT or attempt == _ATTEMPTS:
                    raise
                SYSTEM_CLOCK.sleep(_PAUSE_SECONDS * attempt)

    def _written_by(self, key: str, writer: str) -> bool:
        """Whether the object is the one of an earlier attempt, whose answer was lost."""
        try:
            head = self._s3.head_object(Bucket=self._bucket, Key=key)
        except sdk.ClientError as error:
            if error_code(error) in _MISSING:
                return False
            raise
        return bool(head.get("Metadata", {}).get(_WRITER) == writer)

    # Reading

    def get(self, key: str) -> bytes:
        """One `GetObject`, read again up to three times if the body breaks off."""
        check_key(key)
        return self._call("reading", key, lambda: self._read(Key=key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """One ranged `GetObject`. An empty range asks for one byte, since S3 has no empty ranges."""
        if start < 0 or length < 0:
            raise ValueError(f"a range from {start} of {length} bytes")
        check_key(key)
        # S3 has no empty range; one byte says as well whether the object is there.
        asked = f"bytes={start}-{start + max(length, 1) - 1}"
        return self._call("reading", key, lambda: self._read_range(key, asked))[:length]

    def _read_range(self, key: str, asked: str) -> bytes:
        try:
            return self._read(Key=key, Range=asked)
        except sdk.ClientError as error:
            if error_code(error) in _OUT_OF_RANGE:
                return b""
            raise

    def _read(self, **request: str) -> bytes:
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._read_once(request)
            except (sdk.HTTPClientError, sdk.IncompleteReadError, sdk.FlexibleChecksumError):
                continue
        return self._read_once(request)

    def _read_once(self, request: dict[str, str]) -> bytes:
        # The body's own `with` gives the bare stream, which does not see that it was cut short.
        with closing(self._s3.get_object(Bucket=self._bucket, **request)["Body"]) as body:
            data: bytes = body.read()
        return data

    def exists(self, key: str) -> bool:
        """One `HeadObject`."""
        check_key(key)
        try:
            self._call("looking at", key, lambda: self._s3.head_object(Bucket=self._bucket, Key=key))
        except KeyMissingError:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        """Pages of `ListObjectsV2`. A directory bucket is asked for the whole folder, and filtered here."""
        # A directory bucket takes whole folders only, and has an order of its own.
        asked = prefix[: prefix.rfind("/") + 1] if self._directory else prefix
        keys = self._call("listing", prefix, lambda: list(self._pages(asked)))
        return sorted(key for key in keys if key.startswith(prefix))

    def _pages(self, prefix: str) -> Iterator[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return (item["Key"] for page in pages for item in page.get("Contents", ()))

    # Deleting

    def delete(self, keys: Iterable[str]) -> None:
        """`DeleteObjects`, 1,000 keys a call; keys that S3 reports as failed are retried unless access is denied."""
        remaining = iter([check_key(key) for key in keys])
        while batch := list(itertools.islice(remaining, _DELETED_AT_ONCE)):
            self._delete(batch)

    def _delete(self, keys: Sequence[str]) -> None:
        """One batch; the keys that S3 says it could not delete are named again, a few times."""
        for attempt in range(1, _ATTEMPTS + 1):
            failed = self._call("deleting", keys[0], partial(self._delete_once, keys))
            if not failed:
                return
            if attempt == _ATTEMPTS or any(item.get("Code") in _DENIED for item in failed):
                raise _not_deleted(failed)
            keys = [item["Key"] for item in failed]
            SYSTEM_CLOCK.sleep(_PAUSE_SECONDS * attempt)

    def _delete_once(self, keys: Sequence[str]) -> Sequence[dict[str, Any]]:
        """What S3 says of those it could not delete."""
        request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = self._s3.delete_objects(Bucket=self._bucket, Delete=request)
        return [item for item in answer.get("Errors", ()) if item.get("Code") not in _MISSING]


def _was_repeated(error: sdk.ClientError) -> bool:
    """Whether the SDK had to send the request again, so that an earlier one may have taken effect."""
    return int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) > 0


def _not_deleted(failed: Sequence[dict[str, Any]]) -> StoreError:
    first = failed[0]
    kind = AccessDeniedError if first.get("Code") in _DENIED else StoreError
    return kind(f"{len(failed)} objects were not deleted, the first {first.get('Key')!r}: {first.get('Code')}")
