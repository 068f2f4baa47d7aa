"""Settings of the AWS backend: which deployment to use, and how one is made."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from fsdcore.contracts.settings import check_settings
from fsdcore.errors import ConfigError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_LONGEST_NAME = 24
_ZONE = re.compile(r"[a-z0-9]+-az\d+")
# What Lambda offers.
_PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def own_python() -> str:
    """That of this client where Lambda offers it, else the newest it offers."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return own if own in _PYTHONS else _PYTHONS[-1]


@dataclass(frozen=True)
class AwsSettings:
    """Which deployment runs use, and what `fsd deploy aws` makes. All but the first three count when it is made.

    - `name`: of the deployment; 1 to 24 lower-case letters, digits and inner hyphens
    - `region`, `profile`: empty for what the AWS configuration of the machine says; there is no region by default
    - `memory_mb`, `timeout_seconds`: of the function
    - `architecture`: of the function, ``x86_64`` or ``arm64``
    - `python`: of the function, such as ``3.12``; by default that of this client, or the newest that Lambda offers
    - `topics`: rank r publishes to topic r mod `topics`
    - `topic_bytes`: the most that one publish carries, attributes included; above 262,144 the topics are set to it
    - `payload`: how a frame travels, as a binary ``attribute`` of its message or as base64 ``text`` in it
    - `lanes`: how many runs on queues may be under way at once, each with queues of its own
    - `visibility_timeout`: seconds until a frame that was received and not deleted comes again; less than a
      wait of a run may last, `deadline_seconds`
    - `publishes_in_flight`: how many publishes a worker has under way at once
    - `background_receive`: receive in a thread of its own while the worker computes
    - `express_zone`: id of an availability zone, such as ``use1-az4``: objects lie there in S3 Express One Zone
    - `log_days`, `run_days`: after how many days logs, and what runs left in the bucket, are removed
    """

    name: str = "fsd"
    region: str = ""
    profile: str = ""
    # Without a highest value, the service itself refuses.
    memory_mb: Annotated[int, Meta(ge=1)] = 2_048
    timeout_seconds: Annotated[int, Meta(ge=1)] = 900
    architecture: Literal["x86_64", "arm64"] = "x86_64"
    python: str = own_python()
    topics: Annotated[int, Meta(ge=1, le=100)] = 10
    topic_bytes: Annotated[int, Meta(ge=4_096, le=1 << 20)] = 256 * 1024
    payload: Literal["attribute", "text"] = "attribute"
    lanes: Annotated[int, Meta(ge=1, le=100)] = 1
    # Half of a run's longest wait by default, so that what was in an answer that was lost comes again in time.
    visibility_timeout: Annotated[int, Meta(ge=1, le=43_200)] = 30
    publishes_in_flight: Annotated[int, Meta(ge=1, le=64)] = 4
    background_receive: bool = False
    express_zone: str = ""
    log_days: Annotated[int, Meta(ge=1, le=3_653)] = 14
    run_days: Annotated[int, Meta(ge=1, le=365)] = 1

    def __post_init__(self) -> None:
        check_settings(self)
        if not _NAME.fullmatch(self.name) or len(self.name) > _LONGEST_NAME or "--" in self.name:
            raise ConfigError(
                f"name must be 1 to {_LONGEST_NAME} lower-case letters, digits and single inner hyphens, "
                f"not {self.name!r}"
            )
        if self.python not in _PYTHONS:
            raise ConfigError(f"python must be one of {', '.join(_PYTHONS)}, not {self.python!r}")
        if self.express_zone and not _ZONE.fullmatch(self.express_zone):
            raise ConfigError(
                f"express_zone must be the id of an availability zone, such as use1-az4, not {self.express_zone!r}"
            )
