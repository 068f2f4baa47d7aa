"""The package that Lambda gets, run as Lambda runs it: the compiled kernel is in it, and in use."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from fsd_aws import AwsBackend, AwsSettings
from fsd_aws.deploy import provisioner
from fsd_aws.deploy.package import lambda_package
from fsd_emulators.aws import LocalAws
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.deploy import Package, package
from fsdcore.errors import ConfigError
from fsdcore.network.verify import verify
from fsdcore.record.observer import Observer
from fsdcore.testing import random_inputs, random_network
from tests.end_to_end.sites import Site

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NETWORK = random_network((32, 48, 32))
INPUTS = random_inputs(20, 32)


def test_workers_multiply_with_the_compiled_kernel(site_of_package: Site) -> None:
    """Told to take no other, they fail without it: the next test."""
    with site_of_package.session(workers=3, kernel="compiled") as session:
        assert verify(NETWORK, INPUTS, session.load(NETWORK).run(INPUTS).outputs).right


def test_a_package_without_the_compiled_kernel_is_found_out(backend_without_kernel: AwsBackend) -> None:
    def session(kernel: Literal["auto", "compiled"]) -> Session:
        return Session(backend_without_kernel, RunSettings(workers=3, method="block", kernel=kernel, run_seconds=60.0))

    with pytest.raises(ConfigError, match="the compiled kernel is not installed"):
        session("compiled").load(NETWORK).run(INPUTS)
    assert verify(NETWORK, INPUTS, session("auto").load(NETWORK).run(INPUTS).outputs).right


def test_a_client_whose_own_kernel_is_of_no_use_deploys_one_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "misfit", lambda path, target: "not built for Linux")
    with LocalAws(tmp_path) as local:
        for name, value in local.environment.items():
            monkeypatch.setenv(name, value)
        with closing(AwsBackend(AwsSettings(name="far", topics=1, timeout_seconds=120))) as backend:
            backend.provisioner().deploy(3)
            settings = RunSettings(workers=3, method="block", kernel="compiled", run_seconds=60.0)
            result = Session(backend, settings).load(NETWORK).run(INPUTS)
    assert verify(NETWORK, INPUTS, result.outputs).right
    assert {worker.kernel.partition(" ")[0] for worker in result.record.per_worker} == {"compiled"}


@pytest.fixture
def site_of_package(aws_site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    for name, value in aws_site.environ.items():
        monkeypatch.setenv(name, value)
    return aws_site


@pytest.fixture
def backend_without_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsBackend]:
    """Deployed with the real package but for the compiled kernel."""

    def build(settings: AwsSettings, observer: Observer) -> Package:
        real = lambda_package(settings, observer)
        path = tmp_path / "package.zip"
        _copy_without_kernel(real.path, path)
        return Package(path, "0" * 64, path.stat().st_size, real.unzipped_bytes, real.notices)

    monkeypatch.setattr(provisioner, "lambda_package", build)
    with LocalAws(tmp_path) as local:
        for name, value in local.environment.items():
            monkeypatch.setenv(name, value)
        with closing(AwsBackend(AwsSettings(name="bare", topics=1, timeout_seconds=120))) as backend:
            backend.provisioner().deploy(3)
            yield backend


def _copy_without_kernel(source: Path, target: Path) -> None:
    left_out = []
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w") as written:
        for item in read.infolist():
            if item.filename.startswith("fsdcore/kernels/_native"):
                left_out.append(item.filename)
            else:
                written.writestr(item, read.read(item), compress_type=zipfile.ZIP_DEFLATED, compresslevel=1)
    assert [name.endswith(".so") for name in left_out] == [True]
