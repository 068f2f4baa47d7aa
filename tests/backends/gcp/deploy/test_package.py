"""The source of the function, run as an instance runs it: what is in it is what is used."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from pathlib import Path

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud.functions_v2 import FunctionServiceClient

from backends.gcp import GcpSettings
from backends.gcp.deploy.access import make_account
from backends.gcp.deploy.function import make_function
from backends.gcp.deploy.package import source_recipe
from backends.gcp.deploy.rest import Rest
from backends.gcp.deployment import Deployment
from backends.gcp.emulator.environment import PROJECT, REGION
from backends.gcp.emulator.functions import FunctionsServer
from fsdcore.events import SILENT
from fsdcore.kernels import compiled_is_there
from fsdcore.packaging import build_package

# Imports the worker as the real entry point does, and tells what it would multiply with.
PROBE = """
import sys

import backends.gcp.worker
from fsdcore.kernels import make_kernel


def worker(request):
    kernels = {choice: type(make_kernel(choice)).__name__ for choice in ("auto", "compiled", "scipy")}
    native = sys.modules.get("fsdcore.kernels._native")
    return {"kernels": kernels, "library": native.__file__ if native else "", "worker": backends.gcp.worker.__file__}
"""


def test_instances_multiply_with_the_compiled_kernel_of_the_source(
    functions: FunctionsServer, package_cache: Path
) -> None:
    if not compiled_is_there():
        pytest.skip("the compiled kernel is not installed here, so it cannot be in the source")
    settings = GcpSettings(name="probe", region=REGION, functions_endpoint=functions.url)
    deployment = Deployment.of(settings, project=PROJECT, workers=1)
    recipe = source_recipe(deployment)
    probed = dataclasses.replace(recipe, texts={**recipe.texts, "main.py": PROBE})
    options = {"api_endpoint": functions.url}
    client = FunctionServiceClient(transport="rest", credentials=AnonymousCredentials(), client_options=options)
    with closing(Rest(AnonymousCredentials(), PROJECT, functions.url)) as rest:
        make_account(rest, deployment)
    make_function(client, deployment, build_package(probed, package_cache), SILENT)
    answer = requests.post(deployment.url, headers={"Authorization": "Bearer local"}, timeout=60.0)
    told = json.loads(answer.text)
    assert told["kernels"] == {"auto": "CompiledKernel", "compiled": "CompiledKernel", "scipy": "ScipyKernel"}
    # Both from the folder of the function, where the source was unpacked.
    home = Path(told["worker"]).parents[2]
    assert Path(told["library"]).parent == home / "fsdcore" / "kernels"
    assert not home.is_relative_to(Path(__file__).parents[4])
