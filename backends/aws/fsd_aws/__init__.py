"""Runs on AWS: workers are Lambda functions, queues are SNS and SQS, objects lie in S3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsd_aws.settings import AwsSettings

if TYPE_CHECKING:
    from fsd_aws.backend import AwsBackend

__all__ = ["AwsBackend", "AwsSettings"]


def __getattr__(name: str) -> Any:
    # Only on demand, so that names and settings can be used without the packages of AWS.
    if name == "AwsBackend":
        from fsd_aws.backend import AwsBackend

        return AwsBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
