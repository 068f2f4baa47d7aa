"""What Google keeps of the functions that it built goes with the deployment, or is told of."""

from __future__ import annotations

import pytest

from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.management import Management
from fsdcore.contracts.backend import Removal
from tests.backends.gcp.deploy.conftest import BackendMaker
from tests.backends.gcp.deploy.test_provisioner import fsd

PLACE = f"projects/{PROJECT}/locations/{REGION}"
IMAGE = "local--project__europe--west1__fsd--demo"


def test_images_and_sources_go_and_what_is_shared_is_told(make_backend: BackendMaker, management: Management) -> None:
    backend = make_backend()
    backend.provisioner().deploy(1)
    others = "local--project__europe--west1__other"
    management.images[PLACE].add(others)
    assert management.images[PLACE] == {IMAGE, others}
    client = backend.clients.storage
    names = [f"gcf-v2-sources-123-{REGION}", f"gcf-v2-uploads-123-{REGION}", "gcf-v2-sources-123-us-east1"]
    buckets = [client.bucket(name) for name in names]
    for bucket in buckets:
        # As Google makes them.
        bucket.versioning_enabled = True
        client.create_bucket(bucket)
    for key in ("fsd-demo/function-source.zip", "fsd-demo-2/function-source.zip"):
        for bucket in buckets:
            bucket.blob(key).upload_from_string(b"source")
    removal = backend.provisioner().destroy()
    assert removal.left == ()
    assert {"image of fsd-demo", "1 source of fsd-demo"} <= set(removal.removed)
    assert removal.shared == (f"bucket {names[0]}", f"bucket {names[1]}", f"repository gcf-artifacts in {REGION}")
    assert management.images[PLACE] == {others}
    left = [[blob.name for blob in client.list_blobs(bucket)] for bucket in buckets]
    assert left == [
        ["fsd-demo-2/function-source.zip"],
        ["fsd-demo-2/function-source.zip", "fsd-demo/function-source.zip"],
        ["fsd-demo-2/function-source.zip", "fsd-demo/function-source.zip"],
    ]
    for bucket in buckets:
        bucket.delete(force=True)


@pytest.mark.parametrize(
    ("trouble", "why"), [("forbidden_apis", "no permission: "), ("disabled_apis", "the API artifactregistry")]
)
def test_who_may_not_remove_images_is_told_and_the_rest_goes(
    make_backend: BackendMaker, management: Management, trouble: str, why: str
) -> None:
    backend = make_backend()
    backend.provisioner().deploy(1)
    getattr(management, trouble).add("artifactregistry.googleapis.com")
    removal = backend.provisioner().destroy()
    assert "function fsd-demo" in removal.removed
    (left,) = removal.left
    assert left.startswith(f"image of fsd-demo: {why}")
    assert management.images[PLACE] == {IMAGE}
    assert management.accounts == {}
    # Where there was no function, nobody knows that there is an image.
    assert backend.provisioner().destroy() == Removal()
    getattr(management, trouble).clear()
    assert backend.provisioner().destroy().removed == ("image of fsd-demo",)


def test_the_command_tells_what_stays(make_backend: BackendMaker, management: Management) -> None:
    make_backend().provisioner().deploy(1)
    done = fsd("destroy", "gcp", "--name", "demo", "--yes")
    assert done.exit_code == 0
    assert f"stays, of the provider: repository gcf-artifacts in {REGION}" in done.stdout
    again = fsd("destroy", "gcp", "--name", "demo", "--yes")
    assert (again.exit_code, "stays" in again.stdout, "nothing to remove" in again.stdout) == (0, False, True)
