"""The bucket of a deployment is its own, and safe, however it came to be."""

from __future__ import annotations

import pytest
from google.cloud import storage

from backends.gcp import GcpBackend
from backends.gcp.emulator.environment import PROJECT
from backends.gcp.emulator.storage import StorageServer
from fsdcore.errors import ConfigError
from tests.backends.gcp.deploy.conftest import BackendMaker

NAME = f"fsd-demo-{PROJECT}"


@pytest.fixture
def backend(make_backend: BackendMaker) -> GcpBackend:
    return make_backend()


def made(backend: GcpBackend, **labels: str) -> storage.Bucket:
    """By hand, before the deploy."""
    bucket = backend.clients.storage.bucket(NAME)
    bucket.labels = labels
    created: storage.Bucket = backend.clients.storage.create_bucket(bucket)
    return created


def test_a_strangers_bucket_of_our_name_is_refused(backend: GcpBackend, cloud_storage: StorageServer) -> None:
    bucket = made(backend, **{"fsd-deployment": "demo"})
    cloud_storage.strangers.add(NAME)
    try:
        with pytest.raises(ConfigError, match=f"bucket {NAME} belongs to another project"):
            backend.provisioner().deploy(1)
    finally:
        cloud_storage.strangers.clear()
        bucket.delete()


def test_a_bucket_of_ours_for_something_else_is_refused(backend: GcpBackend) -> None:
    bucket = made(backend, purpose="backups")
    with pytest.raises(ConfigError, match=f"bucket {NAME} has no label fsd-deployment = demo"):
        backend.provisioner().deploy(1)
    bucket.delete()


def test_protections_are_brought_up_to_date_and_the_rest_stays(backend: GcpBackend) -> None:
    bucket = made(backend, **{"fsd-deployment": "demo", "team": "ai"})
    bucket.add_lifecycle_delete_rule(age=400, matches_prefix=["plans/"])
    bucket.add_lifecycle_delete_rule(age=99, matches_prefix=["runs/"])
    bucket.patch()
    backend.provisioner().deploy(1)
    found = backend.clients.storage.get_bucket(NAME)
    assert found.labels == {"fsd-deployment": "demo", "team": "ai"}
    assert found.iam_configuration.uniform_bucket_level_access_enabled
    assert found.iam_configuration.public_access_prevention == "enforced"
    assert found.soft_delete_policy.retention_duration_seconds == 0
    rules = {tuple(rule["condition"]["matchesPrefix"]): rule["condition"]["age"] for rule in found.lifecycle_rules}
    assert rules == {("plans/",): 400, ("runs/",): 1}
