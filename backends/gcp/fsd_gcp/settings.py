"""Settings of the GCP backend: which deployment to use, and how one is made."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from fsdcore.contracts.settings import check_settings
from fsdcore.errors import ConfigError
from fsdcore.loopback import is_endpoint

_NAME = re.compile(r"[a-z][a-z0-9-]*[a-z0-9]")
# A service account's id has 6 to 30 characters, "fsdb-" among them.
_LONGEST_NAME = 24
_DOMAIN = r"(?i:([a-z0-9-]+\.)+[a-z][a-z0-9-]+)"
_PERSON = rf"[^\s:,@/]+@{_DOMAIN}"
_ACCOUNT = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?@([a-z0-9-]+\.)+gserviceaccount\.com")
# Kubernetes' account, as which a pod is known.
_OF_POD = r"[a-z0-9.:-]+\.svc\.id\.goog\[[a-z0-9.-]+/[a-z0-9.-]+\]"
_POOL = r"(projects/\d+/locations/global/workloadIdentityPools|locations/global/workforcePools)/[a-z0-9.-]+"
_CALLER = re.compile(
    rf"(user|group):{_PERSON}|domain:{_DOMAIN}|serviceAccount:({_ACCOUNT.pattern}|{_OF_POD})"
    rf"|principal(Set)?://iam\.googleapis\.com/{_POOL}/[^\s,]+"
)
# What Cloud Run takes: hundredths of one processor, or these numbers of whole ones.
_CPU = re.compile(r"0\.(0[89]|[1-9]\d?)|[12468]")
_PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")
_SERVER = re.compile(r"https?://[^\s/]+")
_TARGET = re.compile(r"[^\s/]+:\d{1,5}")
_CALLERS = (
    "one is such as user:ann@example.com, serviceAccount:ci@PROJECT.iam.gserviceaccount.com or "
    "principal://iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/subject/SUBJECT"
)
_PYTHONS = ("3.11", "3.12", "3.13", "3.14")
_LEAST_MEMORY = 256
# How much memory, in MiB, Cloud Run takes for so many processors at least: the least and the most.
_MEMORY_OF_CPU = (
    (0.0, 0, 512),
    (0.5, 0, 1_024),
    (1.0, 0, 4_096),
    (2.0, 0, 8_192),
    (4.0, 2_048, 16_384),
    (6.0, 4_096, 24_576),
    (8.0, 4_096, 32_768),
)


def _own_python() -> str:
    """That of this client, or the newest that the service has."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    return own if own in _PYTHONS else _PYTHONS[-1]


def is_account(email: str) -> bool:
    """Whether an address is of a service account, not of a person."""
    return _ACCOUNT.fullmatch(email) is not None


def is_region(place: str) -> bool:
    """Whether it may be the name of a region: a zone is none, and neither is a place of several regions."""
    return _REGION.fullmatch(place) is not None


def checked_project(project: str) -> str:
    """`project`; `ConfigError` if no project can have that id."""
    if not _PROJECT.fullmatch(project):
        raise ConfigError(
            f"project must be the id of one, 6 to 30 lower-case letters, digits and hyphens, not {project!r}"
        )
    return project


@dataclass(frozen=True)
class GcpSettings:
    """Which deployment runs use, and what `fsd deploy gcp` makes. All but the first three count when it is made.

    - `name`: of the deployment; 2 to 24 lower-case letters, digits and inner hyphens, a letter first
    - `project`: id of the project; empty for the one that the credentials are of
    - `region`: such as ``europe-west4``, no zone and no continent; there is no region by default
    - `memory_mb`, `timeout_seconds`: of the function
    - `cpu`: of the function, such as ``1`` or ``2``; empty for what comes with the memory
    - `python`: of the function, such as ``3.12``; by default that of this client
    - `lanes`: how many runs on queues may be under way at once, each with topics of its own
    - `ack_deadline`: seconds until a message that was pulled and not acknowledged comes again
    - `publishes_in_flight`: how many publishes a worker has under way at once
    - `callers`: who may run, besides who deploys, as members of policies with commas between them, such as
      ``user:ann@example.com,group:team@example.com``
    - `build_account`: e-mail of the service account that builds the function; empty for one that the deploy makes
    - `run_days`: after how many days what runs left in the bucket is removed
    - `storage_endpoint`, `pubsub_endpoint`, `functions_endpoint`: servers that stand in for Google's, such as
      ``http://127.0.0.1:4443``, ``127.0.0.1:8085`` and ``http://127.0.0.1:8086``
    """

    name: str = "fsd"
    project: str = ""
    region: str = ""
    memory_mb: Annotated[int, Meta(ge=_LEAST_MEMORY, le=32_768)] = 2_048
    timeout_seconds: Annotated[int, Meta(ge=1, le=3_600)] = 900
    cpu: str = ""
    python: str = _own_python()
    lanes: Annotated[int, Meta(ge=1, le=100)] = 1
    ack_deadline: Annotated[int, Meta(ge=10, le=600)] = 60
    publishes_in_flight: Annotated[int, Meta(ge=1, le=64)] = 8
    callers: str = ""
    build_account: str = ""
    run_days: Annotated[int, Meta(ge=1, le=365)] = 1
    storage_endpoint: str = ""
    pubsub_endpoint: str = ""
    functions_endpoint: str = ""

    def __post_init__(self) -> None:
        check_settings(self)
        if not _NAME.fullmatch(self.name) or len(self.name) > _LONGEST_NAME:
            raise ConfigError(
                f"name must be 2 to {_LONGEST_NAME} lower-case letters, digits and inner hyphens, a letter first, "
                f"not {self.name!r}"
            )
        if self.python not in _PYTHONS:
            raise ConfigError(f"python must be one of {', '.join(_PYTHONS)}, not {self.python!r}")
        if self.cpu and not _CPU.fullmatch(self.cpu):
            raise ConfigError(f"cpu must be 1, 2, 4, 6 or 8 processors, or 0.08 to 0.99 of one, not {self.cpu!r}")
        if self.cpu:
            self._check_memory()
        if self.build_account and not is_account(self.build_account):
            raise ConfigError(
                "build_account must be the e-mail of a service account, such as "
                f"builds@PROJECT.iam.gserviceaccount.com, not {self.build_account!r}"
            )
        self._check_places()
        for member in self.members:
            if not _CALLER.fullmatch(member):
                raise ConfigError(f"callers: {member!r} is none; {_CALLERS}")

    def _check_memory(self) -> None:
        least, most = [(low, high) for cpu, low, high in _MEMORY_OF_CPU if cpu <= float(self.cpu)][-1]
        if not least <= self.memory_mb <= most:
            raise ConfigError(
                f"cpu {self.cpu} goes with a memory_mb of {max(least, _LEAST_MEMORY)} to {most}, not {self.memory_mb}"
            )

    def _check_places(self) -> None:
        if self.project:
            checked_project(self.project)
        if self.region and not is_region(self.region):
            raise ConfigError(f"region must be the name of one, such as europe-west4, not {self.region!r}")
        for key in ("storage_endpoint", "functions_endpoint"):
            given = getattr(self, key)
            if given and not (_SERVER.fullmatch(given) and is_endpoint(given)):
                raise ConfigError(f"{key} must be such as http://127.0.0.1:4443, not {given!r}")
        pubsub = self.pubsub_endpoint
        if pubsub and not (_TARGET.fullmatch(pubsub) and is_endpoint(f"http://{pubsub}")):
            raise ConfigError(f"pubsub_endpoint must be such as 127.0.0.1:8085, not {self.pubsub_endpoint!r}")

    @property
    def members(self) -> list[str]:
        """The callers, one by one."""
        return [member.strip() for member in self.callers.split(",") if member.strip()]

    @property
    def emulated(self) -> bool:
        """Whether servers of this machine stand in for Google's."""
        return bool(self.storage_endpoint or self.pubsub_endpoint or self.functions_endpoint)
