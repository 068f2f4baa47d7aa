"""What a backend is: a name, settings, and the three parts the core needs of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import msgspec

from fsdcore.clock import SYSTEM_CLOCK, Clock
from fsdcore.contracts.channel import Address, Channel
from fsdcore.contracts.compute import Compute
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.contracts.settings import kinds
from fsdcore.contracts.store import Store
from fsdcore.decoding import from_json
from fsdcore.errors import ConfigError
from fsdcore.record.observer import SILENT, Observer

_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class NoSettings:
    """Settings of a backend that has none."""


@dataclass(frozen=True)
class Check:
    """One check of `fsd doctor`: whether it passed, what was found, and what to do if it failed."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class DeploymentStatus:
    """Whether a deployment exists: `ready` for runs of up to `workers`, and its `resources`, one line each.

    `problem` says why it is not ready and what to do. A deployment that does not exist has no resources.
    """

    name: str
    ready: bool
    workers: int
    resources: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Removal:
    """What `destroy` did: one line for each resource, or kind of resource, in `removed` and `left`, which says why.

    `shared` are resources that the provider made for itself; they stay, since others may use them.
    """

    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


class Provisioner(ABC):
    """Creates and removes the resources that runs need: function, topics, queues, bucket.

    They belong to a deployment, never to a run. Every call may be repeated, even after one that was interrupted:
    `deploy` creates what is missing, changes what differs and leaves the rest; `destroy` removes what exists, and
    nothing to remove is no error. `observer` hears of each step.

    **Errors.** `AccessDeniedError` without credentials or permission, `InputError` for settings that the service does
    not accept, `DeploymentError` for everything else.
    """

    observer: Observer = SILENT

    @abstractmethod
    def describe(self, workers: int) -> str:
        """All that `deploy` would make, as text for a reader; calls no service and needs no credentials."""

    @abstractmethod
    def deploy(self, workers: int) -> DeploymentStatus:
        """Make everything for runs of up to `workers`; returns when it can be used."""

    @abstractmethod
    def status(self) -> DeploymentStatus:
        """What is there now; changes nothing."""

    @abstractmethod
    def destroy(self) -> Removal:
        """Remove everything the deployment made, and nothing else."""


class Backend(ABC):
    """Gives the core a store, a compute and channels.

    A backend is made from its frozen settings, here for the client and again inside each worker, where the
    constructor must not need credentials or packages beyond what the worker has. Parts are made on first use.
    Where there are deployments, the settings inside a worker are those of its deployment.

    Client and workers go by its `clock`, and so do its own parts where they wait or read the time: then a whole run can
    be tested in virtual time.

    `name` is the name of its entry point. `summary` is one line for the table of backends. `channels` are the kinds
    it offers, the usual ones being ``queue`` and ``object``. `settings_type` is a frozen dataclass whose fields
    all have defaults; configuration fills it from the table of the backend's name.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    channels: ClassVar[tuple[str, ...]] = ("queue", "object")
    settings_type: ClassVar[type[Any]] = NoSettings

    def __init__(self, settings: Any = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.settings = self.settings_type() if settings is None else settings
        self.clock = clock
        self.observer: Observer = SILENT

    @property
    @abstractmethod
    def store(self) -> Store:
        """The store of the deployment; the same object each time."""

    @property
    @abstractmethod
    def compute(self) -> Compute:
        """What starts workers; the same object each time."""

    @abstractmethod
    def open_channel(self, kind: str, address: Address) -> Channel:
        """An endpoint of `kind` for the rank at `address`; `ConfigError` for a kind it does not have."""

    @abstractmethod
    def channel_capabilities(self, kind: str) -> ChannelCapabilities:
        """The limits of the channels of `kind`, without opening one."""

    def provisioner(self) -> Provisioner | None:
        """What makes the backend's resources, and tells its steps to `self.observer`; None if it needs none."""
        return None

    def credentials(self) -> str:
        """One line for `fsd doctor`: what credentials were found, or that none are needed."""
        return "none needed"

    def checks(self, workers: int) -> Iterable[Check]:
        """For `fsd doctor`, in order: what runs of `workers` need of accounts, quotas and the deployment.

        May call services, and changes nothing. A failure is a `Check` that is not ok, or a raised `FsdError`, which
        ends the checks.
        """
        return (Check("credentials", True, self.credentials()),)

    def check_channel(self, kind: str) -> str:
        """Return `kind` if the backend has it."""
        if kind not in self.channels:
            raise ConfigError(f"backend {self.name!r} has no channel {kind!r}; it has: {', '.join(self.channels)}")
        return kind

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Release all resources. May be called twice; workers still running are stopped where the service can stop
        them.
        """


class DeploymentFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment for runs of up to `workers` on `lanes` lanes; a backend adds the facts that its resource names
    depend on.

    A subclass names in `command` the command that makes such a deployment.
    """

    command: ClassVar[str]

    name: str
    region: str
    workers: int
    lanes: int
    memory_mb: int
    timeout_seconds: int
    publishes_in_flight: int

    @classmethod
    def of(cls, settings: Any, **given: Any) -> Self:
        """The deployment that `settings` of the backend describe, with what is `given` besides them."""
        return cls(
            **{field: getattr(settings, field) for field in cls.__struct_fields__ if field not in given}, **given
        )

    def settings(self, kind: type[_Settings]) -> _Settings:
        """The settings that it was made with; those it does not say, which no worker needs, are the defaults."""
        return kind(**{key: getattr(self, key) for key in kinds(kind) if key in self.__struct_fields__})

    def to_json(self) -> str:
        """The facts as text, which the function has as an environment variable."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote; `ConfigError` for what another release made."""
        return from_json(
            text,
            cls,
            lambda reason: ConfigError(f"the deployment was made by another release ({reason}); run: {cls.command}"),
        )

    @classmethod
    def told(cls, text: str | None) -> Self | None:
        """As `from_json`; None where there is nothing, or another release made it."""
        try:
            return cls.from_json(text) if text else None
        except ConfigError:
            return None
