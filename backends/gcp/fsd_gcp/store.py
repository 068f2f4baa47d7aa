"""Objects in Cloud Storage."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import requests
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from urllib3.exceptions import HTTPError

from fsd_gcp.calls.errors import BucketMissingError, one_line, translation
from fsdcore.contracts.limits import StoreCapabilities
from fsdcore.contracts.store import Store, check_key
from fsdcore.errors import KeyMissingError, PreconditionError, StoreError

_IN_FLIGHT = 8
CAPABILITIES = StoreCapabilities(max_object_bytes=5 << 40, latency_seconds=0.03)
# One attempt, and all attempts of one call together, in seconds.
_ATTEMPT, _TOTAL = 60.0, 120.0
_WRITER = "fsd-writer"
_TRANSIENT = (
    ConnectionError,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    # Of raw downloads, which Google's client reads past requests.
    HTTPError,
    TransportError,
    DataCorruption,
)
_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})


def _is_transient(error: Exception) -> bool:
    if isinstance(error, InvalidResponse):
        return error.response.status_code in _TRANSIENT_STATUS
    return isinstance(error, _TRANSIENT) or getattr(error, "code", None) in _TRANSIENT_STATUS


def _retry(on_error: Callable[[Exception], Any] | None = None, total: float = _TOTAL) -> Retry:
    return Retry(predicate=_is_transient, initial=0.1, maximum=10.0, multiplier=2.0, timeout=total, on_error=on_error)


class GcsStore(Store):
    """The objects of one bucket. `client` is shared and stays open when the store closes."""

    def __init__(self, client: storage.Client, bucket: str) -> None:
        self._client, self._bucket = client, client.bucket(bucket)

    @property
    def capabilities(self) -> StoreCapabilities:
        """Objects up to 5 TiB; a small request takes about 30 ms."""
        return CAPABILITIES

    @contextmanager
    def _translated(self, what: str, missing_key: str | None = None) -> Iterator[None]:
        """`missing_key` is the object that a 404 speaks of, if it can be one."""
        try:
            yield
        except exceptions.NotFound as error:
            # What the service says of a bucket; of an object it says "No such object".
            if missing_key is None or "bucket does not exist" in str(error):
                raise self._bucket_missing() from error
            raise KeyMissingError(f"there is no object at {missing_key!r}") from None
        except exceptions.RetryError as error:
            raise StoreError(f"{what}: tried for {_TOTAL:g} s in vain: {one_line(error.cause or error)}") from error
        except (exceptions.GoogleAPIError, GoogleAuthError) as error:
            raise translation(error, what, StoreError) from error
        except (requests.RequestException, HTTPError, DataCorruption) as error:
            raise StoreError(f"{what}: {one_line(error)}") from error

    def _bucket_missing(self) -> BucketMissingError:
        return BucketMissingError(f"the bucket {self._bucket.name!r} does not exist; run: fsd deploy gcp")

    def put(self, key: str, data: bytes, if_absent: bool = False) -> None:
        """One upload with a CRC32C checksum. `if_absent` makes it conditional on generation 0.

        A conditional write marks its object, and so recognizes one that an earlier attempt of its own wrote.
        """
        blob = self._bucket.blob(check_key(key))
        with self._translated(f"writing {key!r}"):
            if if_absent:
                self._create(blob, data)
            else:
                self._upload(blob, data, _retry())

    def _upload(self, blob: storage.Blob, data: bytes, retry: Retry, generation: int | None = None) -> None:
        blob.upload_from_string(
            data,
            content_type="application/octet-stream",
            if_generation_match=generation,
            timeout=_ATTEMPT,
            checksum="crc32c",
            retry=retry,
        )

    def _create(self, blob: storage.Blob, data: bytes) -> None:
        """Write if absent. A write that was repeated may meet the object that it made itself: a mark on it tells."""
        repeated: list[Exception] = []
        mark = uuid.uuid4().hex
        blob.metadata = {_WRITER: mark}
        try:
            self._upload(blob, data, _retry(repeated.append), generation=0)
        except exceptions.PreconditionFailed:
            if not (repeated and self._is_marked(blob.name, mark)):
                raise PreconditionError(f"there is an object at {blob.name!r} already") from None

    def _is_marked(self, key: str, mark: str) -> bool:
        found = self._bucket.get_blob(key, timeout=_ATTEMPT, retry=_retry())
        return found is not None and (found.metadata or {}).get(_WRITER) == mark

    def get(self, key: str) -> bytes:
        """One raw download, checked against the CRC32C of the object; transient errors are retried for two minutes."""
        with self._translated(f"reading {key!r}", check_key(key)):
            return self._download(key, None, None)

    def _download(self, key: str, start: int | None, end: int | None) -> bytes:
        def attempt() -> bytes:
            data = self._bucket.blob(key).download_as_bytes(
                start=start,
                end=end,
                raw_download=True,
                timeout=_ATTEMPT,
                # The checksum of an object says nothing of a part of it.
                checksum=None if start is not None else "crc32c",
                # Google's own retries leave out what breaks while the text of a refusal is read.
                retry=None,
                single_shot_download=True,
            )
            return bytes(data)

        return bytes(_retry()(attempt)())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """One ranged download without a checksum, which is of whole objects; an empty range reads metadata."""
        if start < 0 or length < 0:
            raise ValueError(f"a range from {start} of {length} bytes")
        with self._translated(f"reading {key!r}", check_key(key)):
            if length == 0:
                self._bucket.blob(key).reload(timeout=_ATTEMPT, retry=_retry())
                return b""
            try:
                return self._download(key, start, start + length - 1)
            except exceptions.RequestRangeNotSatisfiable:
                return b""

    def list(self, prefix: str) -> list[str]:
        """Pages that hold names alone."""
        with self._translated(f"listing {prefix!r}"):
            found = self._client.list_blobs(
                self._bucket,
                prefix=prefix or None,
                fields="items(name),nextPageToken",
                timeout=_ATTEMPT,
                retry=_retry(),
            )
            return sorted(blob.name for blob in found)

    def exists(self, key: str, seconds: float = _TOTAL) -> bool:
        """As of the base; no attempt begins after `seconds`, nor takes longer."""
        total = min(seconds, _TOTAL)
        with self._translated(f"looking for {key!r}"):
            blob = self._bucket.blob(check_key(key))
            return bool(blob.exists(timeout=min(_ATTEMPT, total), retry=_retry(total=total)))

    def delete(self, keys: Iterable[str]) -> None:
        """One request a key, up to eight at a time; missing objects are ignored."""
        doomed = [check_key(key) for key in keys]
        if len(doomed) < 2:
            self._delete(doomed)
            return
        with ThreadPoolExecutor(_IN_FLIGHT) as pool:
            for done in [pool.submit(self._delete, doomed[first::_IN_FLIGHT]) for first in range(_IN_FLIGHT)]:
                done.result()

    def _delete(self, keys: Sequence[str]) -> None:
        with self._translated("deleting objects"):
            self._bucket.delete_blobs(keys, on_error=lambda _: None, timeout=_ATTEMPT, retry=_retry())
