"""The bucket of a deployment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from google.api_core import exceptions
from google.cloud import storage

from fsd_gcp.deploy.claims import Claim, by_labels, elsewhere
from fsd_gcp.deployment import REGION_LABEL, Deployment
from fsd_gcp.errors import is_disabled
from fsd_gcp.settings import is_region

__all__ = ["find_bucket", "make_bucket", "remove_bucket"]

_IN_FLIGHT = 8
_TIMEOUT = 60.0


def find_bucket(client: storage.Client, deployment: Deployment) -> storage.Bucket | Claim | None:
    """The bucket; a claim if it is another's; None if there is none.

    Names of buckets are shared by the whole world and can be guessed: ours are those that our project lists.
    """
    for bucket in client.list_buckets(prefix=deployment.bucket, timeout=_TIMEOUT):
        if bucket.name == deployment.bucket:
            return _claim(bucket, deployment) or bucket
    if _is_taken(client, deployment.bucket):
        return Claim(f"bucket {deployment.bucket}", "belongs to another project", "take another --name")
    return None


def _is_taken(client: storage.Client, name: str) -> bool:
    """Of a bucket of somebody else the service does not say more than that it may not be seen."""
    try:
        return client.lookup_bucket(name, timeout=_TIMEOUT) is not None
    except exceptions.Forbidden as error:
        if is_disabled(error):
            raise
        return True


def _claim(bucket: storage.Bucket, deployment: Deployment) -> Claim | None:
    what, place = f"bucket {bucket.name}", bucket.location.lower()
    strange = by_labels(deployment, what, bucket.labels)
    if strange is not None or place == deployment.region:
        return strange
    # Earlier releases have not labelled the region, but have always made it there.
    if is_region(place) and REGION_LABEL not in bucket.labels:
        return elsewhere(deployment, what, place)
    return Claim(what, f"lies in {place}, not {deployment.region}", "remove it, or take another --name")


def make_bucket(client: storage.Client, deployment: Deployment) -> None:
    """Make the bucket, or bring it up to date.

    What runs left is deleted after some days; nobody outside the project can be let in. `ConfigError` for a bucket of
    that name which is another's, or was made for something else.
    """
    bucket = _own(client, deployment)
    if bucket is None:
        bucket = client.bucket(deployment.bucket)
        _describe(bucket, deployment)
        _create(client, bucket, deployment)
    else:
        _describe(bucket, deployment)
        bucket.patch(timeout=_TIMEOUT)


def _own(client: storage.Client, deployment: Deployment) -> storage.Bucket | None:
    found = find_bucket(client, deployment)
    if isinstance(found, Claim):
        raise found.refusal()
    return found


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
    except exceptions.Conflict:
        # Made meanwhile, perhaps by this very call, whose answer was lost.
        if _own(client, deployment) is None:
            raise


def remove_bucket(client: storage.Client, deployment: Deployment) -> int | None:
    """Remove the bucket with all objects, and return how many there were; None if there is none of ours."""
    bucket = find_bucket(client, deployment)
    if bucket is None or isinstance(bucket, Claim):
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
