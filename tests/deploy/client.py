"""A client of another system, as far as a package can tell: the project with no compiled kernel or a foreign one.

``python client.py FOLDER MACHINE``: make Lambda's package for a machine, kept in a folder, and print where it is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from fsd_aws.deploy.package import lambda_recipe
from fsd_aws.settings import AwsSettings
from fsdcore.deploy import build_package

folder, machine = sys.argv[1:]
architecture: Literal["x86_64", "arm64"] = "arm64" if machine == "arm64" else "x86_64"
package = build_package(lambda_recipe(AwsSettings(architecture=architecture)), Path(folder))
sys.stdout.write("".join(f"{line}\n" for line in (package.path, *package.notices)))
