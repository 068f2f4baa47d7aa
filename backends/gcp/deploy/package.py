"""The source of the function: our code, and what Cloud Build is to install beside it.

``python -m backends.gcp.deploy.package`` makes it for the Terraform module, and prints the variables that tell of it.
"""

from __future__ import annotations

import json
import sys

from backends.gcp.deployment import Deployment
from backends.gcp.settings import GcpSettings
from fsdcore.events import SILENT, Observer
from fsdcore.packaging import Package, Recipe, Target, build_package, cache_folder, worker_requirements

__all__ = ["ENTRY", "LARGEST_BYTES", "source_package", "source_recipe"]

# The function in main.py that answers requests.
ENTRY = "worker"
# What a source may have, unzipped.
LARGEST_BYTES = 500_000_000
# Ubuntu 22.04, which all runtimes from Python 3.11 on are built upon, or a later one.
_GLIBC = 35
_MAIN = f'"""The entry point of the function."""\n\nfrom backends.gcp.worker import {ENTRY}\n\n__all__ = ["{ENTRY}"]\n'
_SDK = ("functions-framework==3.10.2", "google-cloud-pubsub==2.44.0", "google-cloud-storage==3.17.1")


def source_recipe(deployment: Deployment) -> Recipe:
    """What goes into the source; other packages are installed from its ``requirements.txt``."""
    target = Target(deployment.python, "x86_64", _GLIBC)
    requirements = "".join(f"{line}\n" for line in (*worker_requirements(target), *_SDK))
    return Recipe(
        target=target,
        modules=("fsdcore", "backends.gcp"),
        requirements=(),
        excluded=("backends/gcp/deploy", "backends/gcp/emulator", "backends/gcp/terraform"),
        largest_bytes=LARGEST_BYTES,
        texts={"main.py": _MAIN, "requirements.txt": requirements},
    )


def source_package(deployment: Deployment, observer: Observer) -> Package:
    """The zip, built or found in the cache of the user."""
    return build_package(source_recipe(deployment), cache_folder(), observer)


def main() -> None:
    """Make the source for this Python; print variables of Terraform as JSON."""
    deployment = Deployment.of(GcpSettings(), project="", workers=1)
    package = source_package(deployment, SILENT)
    told = {"source_zip": str(package.path), "source_digest": package.digest, "python": deployment.python}
    sys.stdout.write(f"{json.dumps(told, indent=2)}\n")


if __name__ == "__main__":
    main()
