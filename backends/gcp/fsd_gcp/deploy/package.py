"""The source of the function: our code, and what Cloud Build is to install beside it.

``python -m fsd_gcp.deploy.package`` makes it for the Terraform module, and prints the variables that tell of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fsd_gcp.deployment import Deployment
from fsd_gcp.settings import GcpSettings
from fsdcore.deploy import Package, Recipe, Target, build_package, cache_folder
from fsdcore.errors import FsdError
from fsdcore.record.observer import SILENT, Observer

# The function in main.py that answers requests.
ENTRY = "worker"
# What a source may have, unzipped.
LARGEST_BYTES = 500_000_000
# Ubuntu 22.04, which all runtimes from Python 3.11 on are built upon, or a later one.
_GLIBC = 35
_MAIN = f'"""The entry point of the function."""\n\nfrom fsd_gcp.worker import {ENTRY}\n\n__all__ = ["{ENTRY}"]\n'
_LOCK = Path(__file__).with_name("requirements.txt")


def source_recipe(deployment: Deployment) -> Recipe:
    """What goes into the source; others are installed from its ``requirements.txt``, with hashes."""
    target = Target(deployment.python, "x86_64", _GLIBC)
    return Recipe(
        target=target,
        modules=("fsdcore", "fsd_gcp"),
        excluded=("fsd_gcp/deploy",),
        largest_bytes=LARGEST_BYTES,
        texts={"main.py": _MAIN, "requirements.txt": _LOCK.read_text(encoding="utf-8")},
    )


def source_package(deployment: Deployment, observer: Observer) -> Package:
    """The zip, built or found in the cache of the user."""
    return build_package(source_recipe(deployment), cache_folder(), observer)


def main() -> int:
    """Make the source for this Python; print variables of Terraform as JSON, and what went wrong on standard error."""
    deployment = Deployment.of(GcpSettings(), project="", workers=1)
    try:
        package = source_package(deployment, SILENT)
    except FsdError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stderr.writelines(f"note: {notice}\n" for notice in package.notices)
    told = {"source_zip": str(package.path), "source_digest": package.digest, "python": deployment.python}
    sys.stdout.write(f"{json.dumps(told, indent=2)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
