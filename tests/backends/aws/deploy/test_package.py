"""The real package of the function: it fits, and it has all that a worker imports."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fsd_aws import AwsSettings
from fsd_aws.deploy.package import LARGEST_BYTES, lambda_recipe
from fsdcore.deploy import build_package

pytestmark = pytest.mark.slow

# As in Lambda: the package, the standard library, and nothing else.
_WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
import fsd_aws.handler, boto3, scipy.sparse, fsdcore.messages.zstd, fsdcore.worker.worker
for service in ("lambda", "s3", "sns", "sqs"):
    boto3.client(service, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
outside = [name for name in ("typer", "rich", "mtkahypar", "fsdcore.cli") if name in sys.modules]
print(fsd_aws.__file__, outside)
"""


def test_the_package_runs_a_worker_by_itself(tmp_path: Path) -> None:
    settings = AwsSettings()
    package = build_package(lambda_recipe(settings), tmp_path / "cache")
    assert package.unzipped_bytes <= LARGEST_BYTES
    task = tmp_path / "task"
    with zipfile.ZipFile(package.path) as archive:
        archive.extractall(task)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", _WORKER, str(task)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{task}/fsd_aws/__init__.py []\n", "")


@pytest.mark.parametrize(("python", "architecture"), [("3.13", "arm64"), ("3.14", "x86_64")])
def test_there_is_a_package_for_other_machines(python: str, architecture: str, tmp_path: Path) -> None:
    settings = AwsSettings(python=python, architecture="arm64" if architecture == "arm64" else "x86_64")
    package = build_package(lambda_recipe(settings), tmp_path)
    assert package.unzipped_bytes <= LARGEST_BYTES
    marks = {"arm64": 183, "x86_64": 62}
    with zipfile.ZipFile(package.path) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        assert len(libraries) > 100
        assert all(archive.read(name)[18] == marks[architecture] for name in libraries[::20])
