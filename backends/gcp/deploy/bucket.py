"""The bucket of a deployment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from google.api_core import exceptions
from google.cloud import storage

from backends.gcp.deployment import LABEL, Deployment
from fsdcore.errors import ConfigError

__all__ = ["make_bucket", "remove_bucket"]

_IN_FLIGHT = 8
_TIMEOUT = 60.0


def make_bucket(client: storage.Client, deployment: Deployment) -> None:
    """Make the bucket, or bring it up to date.

    What runs left is deleted after some days; nobody outside the project can be let in. `ConfigError` for a bucket of
    that name which is another's, or was made for something else: such names can be guessed.
    """
    bucket = client.lookup_bucket(deployment.bucket, timeout=_TIMEOUT)
    if bucket is None:
        bucket = client.bucket(deployment.bucket)
        _describe(bucket, deployment)
        _create(client, bucket, deployment)
    else:
        _check_owner(client, bucket, deployment)
        _describe(bucket, deployment)
        bucket.patch(timeout=_TIMEOUT)


def _check_owner(client: storage.Client, bucket: storage.Bucket, deployment: Deployment) -> None:
    ours = client.list_buckets(prefix=bucket.name, timeout=_TIMEOUT)
    if bucket.name not in {found.name for found in ours}:
        raise ConfigError(f"bucket {bucket.name} belongs to another project; take another --name")
    if bucket.labels.get(LABEL) != deployment.name:
        raise ConfigError(
            f"bucket {bucket.name} has no label {LABEL} = {deployment.name}, so it was made for something else; "
            "remove it, or take another --name"
        )


def _describe(bucket: storage.Bucket, deployment: Deployment) -> None:
    """What makes it ours and safe; other labels and rules stay."""
    bucket.labels = {**bucket.labels, **deployment.labels}
    of_runs = {"matchesPrefix": ["runs/"]}
    others = [rule for rule in bucket.lifecycle_rules if not of_runs.items() <= rule.get("condition", {}).items()]
    bucket.lifecycle_rules = others
    bucket.add_lifecycle_delete_rule(age=deployment.run_days, matches_prefix=["runs/"])
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = "enforced"
    # What was deleted is gone: by default it would be kept, and billed, for a week.
    bucket.soft_delete_policy.retention_duration_seconds = 0


def _create(client: storage.Client, bucket: storage.Bucket, deployment: Deployment) -> None:
    try:
        client.create_bucket(bucket, location=deployment.region, timeout=_TIMEOUT)
    except exceptions.Conflict as error:
        raise ConfigError(f"bucket {bucket.name} belongs to another project; take another --name") from error


def remove_bucket(client: storage.Client, name: str) -> int | None:
    """Remove the bucket with all objects, and return how many there were; None if there is no such bucket."""
    bucket = client.lookup_bucket(name, timeout=_TIMEOUT)
    if bucket is None:
        return None
    blobs = list(client.list_blobs(bucket, fields="items(name),nextPageToken", timeout=_TIMEOUT))
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        parts = [blobs[first::_IN_FLIGHT] for first in range(_IN_FLIGHT)]
        list(pool.map(partial(bucket.delete_blobs, on_error=lambda _: None, timeout=_TIMEOUT), parts))
    try:
        bucket.delete(timeout=_TIMEOUT)
    except exceptions.NotFound:
        return None
    return len(blobs)
