"""The package of the function: which machine Lambda runs it on, and what of the SDK it needs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fsd_aws.settings import AwsSettings
from fsdcore.deploy import Package, Recipe, Target, build_package, cache_folder
from fsdcore.record.observer import Observer

# Amazon Linux 2 with Python 3.11, Amazon Linux 2023 from 3.12 on.
_GLIBC = {"3.11": 26}
_NEWER_GLIBC = 34
# The SDK is ours, not the runtime's: that changes without notice, and may lack what the code was tested with.
_LOCK = Path(__file__).with_name("requirements.txt")
# The services that workers call, and what their clients read of all others; 3 MB of 27.
_SERVICES = frozenset({"lambda", "s3", "sns", "sqs", "sts"})
# What Lambda takes, unzipped.
LARGEST_BYTES = 250 * 1024 * 1024


def lambda_recipe(settings: AwsSettings) -> Recipe:
    """What goes into the package for the function that `settings` describe."""
    target = Target(settings.python, settings.architecture, _GLIBC.get(settings.python, _NEWER_GLIBC))
    return Recipe(
        target=target,
        modules=("fsdcore", "fsd_aws"),
        lock=_LOCK,
        excluded=("fsd_aws/deploy",),
        unneeded=_unneeded,
        largest_bytes=LARGEST_BYTES,
    )


def lambda_package(settings: AwsSettings, observer: Observer) -> Package:
    """The package, built or found in the cache of the user."""
    return build_package(lambda_recipe(settings), cache_folder(), observer)


def _unneeded(path: PurePosixPath) -> bool:
    """Whether a file of the SDK is of a service that workers do not call."""
    parts = path.parts
    if parts[:2] == ("botocore", "data"):
        return len(parts) > 3 and parts[2] not in _SERVICES
    return parts[:2] in (("boto3", "examples"), ("boto3", "data"))
