"""The source that Cloud Functions gets from a client whose own kernel is of no use: workers have one all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.local import LocalGcp
from fsd_gcp import GcpBackend
from fsd_gcp.deploy import package as source
from fsd_gcp.deploy.function import make_function
from fsd_gcp.deployment import Deployment
from fsd_gcp.settings import GcpSettings
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.deploy import package
from fsdcore.network.verify import verify
from fsdcore.record.observer import SILENT
from fsdcore.testing import random_inputs, random_network

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NETWORK = random_network((32, 48, 32))
INPUTS = random_inputs(20, 32)


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcpBackend]:
    """Of a client without a compiler."""
    monkeypatch.setattr(package, "misfit", lambda path, target: "not built for Linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with LocalGcp(tmp_path) as local:
        settings = GcpSettings(
            name="far",
            project=PROJECT,
            region=REGION,
            storage_endpoint=local.storage.url,
            pubsub_endpoint=local.pubsub.target,
            functions_endpoint=local.functions.url,
        )
        with closing(GcpBackend(settings)) as made:
            made.provisioner().deploy(3)
            yield made


def kernels(backend: GcpBackend) -> set[str]:
    """What the workers of an exact run multiplied with."""
    settings = RunSettings(workers=3, method="block", kernel="compiled", run_seconds=60.0)
    result = Session(backend, settings).load(NETWORK).run(INPUTS)
    assert verify(NETWORK, INPUTS, result.outputs).right
    return {worker.kernel.partition(" ")[0] for worker in result.record.per_worker}


def test_it_is_in_what_a_deploy_uploads(backend: GcpBackend) -> None:
    assert kernels(backend) == {"compiled"}


def test_it_is_in_what_terraform_gets(backend: GcpBackend) -> None:
    made = source.source_package(Deployment.of(GcpSettings(), project="", workers=1), SILENT)
    # As with another source, which Terraform's is: the function is built anew.
    other = type(made)(made.path, "f" * 64, made.zipped_bytes, made.unzipped_bytes)
    make_function(backend.clients.functions, backend.deployment, other, SILENT)
    assert kernels(backend) == {"compiled"}
