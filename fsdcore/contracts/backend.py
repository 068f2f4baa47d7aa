"""What a backend is: a name, settings, and the three parts the core needs of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import msgspec

from fsdcore.clock import SYSTEM_CLOCK, Clock
from fsdcore.contracts.channel import Address, Channel
from fsdcore.contracts.compute import Compute
from fsdcore.contracts.limits import ChannelCapabilities
from fsdcore.contracts.store import Store
from fsdcore.decoding import from_json
from fsdcore.errors import ConfigError
from fsdcore.record.observer import SILENT, Observer


@dataclass(frozen=True)
class NoSettings:
    """Settings of a backend that has none."""


@dataclass(frozen=True)
class Check:
    """One thing that `fsd doctor` looked at: whether it is as it must be, what was found, and what to do if not."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class DeploymentStatus:
    """Whether a deployment is there: `ready` for runs of up to `workers`, and its `resources`, one line each.

    `problem` says why it is not ready and what to do; a deployment that is not there at all has no resources.
    """

    name: str
    ready: bool
    workers: int
    resources: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Removal:
    """What `destroy` did: `removed` and `left`, one line for each resource or kind of them; why it was left.

    `shared` is what the provider made for itself, and stays since others may use it.
    """

    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


class Provisioner(ABC):
    """Makes and removes the resources that runs need: function, topics, queues, bucket.

    They belong to a deployment, never to a run. All calls may be repeated, also after one that was stopped in the
    middle: `deploy` makes what is missing, changes what differs and leaves the rest, `destroy` removes what is there
    and is content if nothing is. The steps are told to `observer`.

    **Errors.** `AccessDeniedError` without credentials or permission, `InputError` for settings the service does not
    take, `DeploymentError` for everything else.
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

        May call services, and changes nothing. What fails is a `Check` that is not ok, or a raised `FsdError`, which
        ends the checks.
        """
        return (Check("credentials", True, self.credentials()),)

    def check_channel(self, kind: str) -> str:
        """Return `kind` if the backend has it."""
        if kind not in self.channels:
            raise ConfigError(f"backend {self.name!r} has no channel {kind!r}; it has: {', '.join(self.channels)}")
        return kind

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back everything. May be called twice; workers that run are stopped where the service can."""


class DeploymentFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resources for runs of up to `workers`, on `lanes` lanes; a backend adds the facts that its resources follow from.

    A kind of its own names in `command` what makes such a deployment.
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

    def to_json(self) -> str:
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
