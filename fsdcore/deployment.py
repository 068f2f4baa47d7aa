"""What every deployment tells its workers and its clients, and how it travels from one to the other."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import msgspec

from fsdcore.decoding import from_json
from fsdcore.errors import ConfigError

__all__ = ["DeploymentFacts"]


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
