"""The source of the function, run as an instance runs it: what is in it is what is used."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import requests

from fsd_gcp.deploy import package
from fsd_gcp.deploy.function import make_function
from fsd_gcp.deploy.package import source_recipe
from fsdcore.deploy import build_package
from fsdcore.errors import DeploymentError
from fsdcore.record.observer import SILENT
from tests.backends.gcp.deploy.conftest import BackendMaker

# Imports the worker as the real entry point does, and tells what it would multiply with.
PROBE = """
import sys

import fsd_gcp.worker
from fsdcore.kernels import make_kernel


def worker(request):
    kernels = {choice: type(make_kernel(choice)).__name__ for choice in ("auto", "compiled", "scipy")}
    native = sys.modules.get("fsdcore.kernels._native")
    return {"kernels": kernels, "library": native.__file__ if native else "", "worker": fsd_gcp.worker.__file__}
"""


def test_instances_multiply_with_the_compiled_kernel_of_the_source(
    make_backend: BackendMaker, package_cache: Path
) -> None:
    backend = make_backend()
    assert backend.provisioner().deploy(1).ready
    deployment = backend.deployment
    recipe = source_recipe(deployment)
    probed = dataclasses.replace(recipe, texts={**recipe.texts, "main.py": PROBE})
    make_function(backend.clients.functions, deployment, build_package(probed, package_cache), SILENT)
    answer = requests.post(deployment.url, headers={"Authorization": "Bearer local"}, timeout=60.0)
    told = json.loads(answer.text)
    assert told["kernels"] == {"auto": "CompiledKernel", "compiled": "CompiledKernel", "scipy": "ScipyKernel"}
    # Both from the folder of the function, where the source was unpacked.
    home = Path(told["worker"]).parents[1]
    assert Path(told["library"]).parent == home / "fsdcore" / "kernels"
    assert not home.is_relative_to(Path(__file__).parents[4])


def test_the_source_for_terraform_is_told_of_or_the_reason_why_there_is_none(
    package_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(package_cache))
    assert package.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["source_zip"]).is_file()

    def refused(*_: object) -> None:
        raise DeploymentError("no such luck")

    monkeypatch.setattr(package, "source_package", refused)
    assert package.main() == 1
    assert capsys.readouterr() == ("", "error: no such luck\n")
