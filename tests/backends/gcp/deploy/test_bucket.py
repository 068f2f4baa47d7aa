"""The bucket of a deployment is its own, and safe, however it came to be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.api_core import exceptions
from google.cloud import storage

from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.management import Management
from fsd_emulators.gcp.storage import StorageServer
from fsd_gcp import GcpBackend
from fsdcore.errors import ConfigError
from tests.backends.gcp.deploy.conftest import BackendMaker

NAME = f"fsd-demo-{PROJECT}"
OURS = {"fsd-deployment": "demo"}


@pytest.fixture
def backend(make_backend: BackendMaker) -> GcpBackend:
    return make_backend()


@pytest.fixture
def strangers(cloud_storage: StorageServer) -> Iterator[set[str]]:
    """Buckets of other projects; ours again at the end of the test."""
    yield cloud_storage.foreign_buckets
    cloud_storage.foreign_buckets.clear()


def made(backend: GcpBackend, place: str = REGION, **labels: str) -> storage.Bucket:
    """By hand, before the deploy, with an object in it."""
    bucket = backend.clients.storage.bucket(NAME)
    bucket.labels = labels
    created: storage.Bucket = backend.clients.storage.create_bucket(bucket, location=place)
    created.blob("thesis.txt").upload_from_string(b"mine")
    return created


def refused(backend: GcpBackend, management: Management) -> str:
    """The one line by which a deploy ends; it must have made nothing."""
    with pytest.raises(ConfigError) as caught:
        backend.provisioner().deploy(1)
    assert management.accounts == {}
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_strangers_bucket_of_our_name_is_refused_and_left(
    backend: GcpBackend, management: Management, strangers: set[str]
) -> None:
    bucket = made(backend, **OURS)
    strangers.add(NAME)
    with pytest.raises(exceptions.Forbidden, match=r"storage\.buckets\.get"):
        backend.clients.storage.lookup_bucket(NAME)
    line = f"bucket {NAME} belongs to another project"
    assert refused(backend, management) == f"{line}; take another --name"
    removal = backend.provisioner().destroy()
    assert (removal.removed, removal.left) == ((), (line,))
    strangers.clear()
    bucket.delete(force=True)


@pytest.mark.parametrize("labels", [{}, {"purpose": "backups"}, {"fsd-deployment": "other"}])
def test_a_bucket_of_ours_for_something_else_is_refused_and_left(
    backend: GcpBackend, management: Management, labels: dict[str, str]
) -> None:
    bucket = made(backend, **labels)
    line = f"bucket {NAME} has no label fsd-deployment = demo, so it was made for something else"
    assert refused(backend, management) == f"{line}; remove it, or take another --name"
    removal = backend.provisioner().destroy()
    assert (removal.removed, removal.left) == ((), (line,))
    assert [blob.name for blob in bucket.list_blobs()] == ["thesis.txt"]
    bucket.delete(force=True)


def test_the_rest_of_a_deployment_goes_where_its_bucket_is_a_strangers(
    backend: GcpBackend, management: Management, strangers: set[str]
) -> None:
    backend.provisioner().deploy(1)
    strangers.add(NAME)
    removal = backend.provisioner().destroy()
    assert removal.left == (f"bucket {NAME} belongs to another project",)
    assert {"function fsd-demo", "1 topics, 1 subscriptions"} <= set(removal.removed)
    assert management.accounts == {}


@pytest.mark.parametrize("labels", [OURS, {**OURS, "fsd-region": "us-central1"}])
def test_a_bucket_of_another_region_is_refused_by_all(
    backend: GcpBackend, management: Management, labels: dict[str, str]
) -> None:
    bucket = made(backend, "us-central1", **labels)
    line = f"bucket {NAME} belongs to the deployment 'demo' in us-central1, not {REGION}"
    assert refused(backend, management) == f"{line}; set FSD_GCP_REGION=us-central1, or take another --name"
    with pytest.raises(ConfigError, match="belongs to the deployment 'demo' in us-central1"):
        backend.provisioner().destroy()
    bucket.delete(force=True)


def test_a_bucket_that_lies_in_no_region_is_refused_and_left(backend: GcpBackend, management: Management) -> None:
    bucket = made(backend, "EU", **OURS)
    assert refused(backend, management) == f"bucket {NAME} lies in eu, not {REGION}; remove it, or take another --name"
    assert backend.provisioner().destroy().left == (f"bucket {NAME} lies in eu, not {REGION}",)
    bucket.delete(force=True)


def test_protections_are_brought_up_to_date_and_the_rest_stays(backend: GcpBackend) -> None:
    """Also of a bucket that an earlier release made, which did not label the region."""
    bucket = made(backend, team="ai", **OURS)
    bucket.add_lifecycle_delete_rule(age=400, matches_prefix=["plans/"])
    bucket.add_lifecycle_delete_rule(age=99, matches_prefix=["runs/"])
    bucket.patch()
    backend.provisioner().deploy(1)
    found = backend.clients.storage.get_bucket(NAME)
    assert found.labels == {"fsd-deployment": "demo", "fsd-region": REGION, "team": "ai"}
    assert found.iam_configuration.uniform_bucket_level_access_enabled
    assert found.iam_configuration.public_access_prevention == "enforced"
    assert found.soft_delete_policy.retention_duration_seconds == 0
    rules = {tuple(rule["condition"]["matchesPrefix"]): rule["condition"]["age"] for rule in found.lifecycle_rules}
    assert rules == {("plans/",): 400, ("runs/",): 1}
