"""Every error the framework raises, in one tree.

::

    FsdError
    ├── InputError (ValueError)         what the caller gave cannot be used; exit code 2
    │   ├── ConfigError                 a configuration key or value
    │   ├── FormatError                 a file: carries `file` and `line`
    │   ├── PlanError                   a partition or plan that does not fit network or run
    │   ├── BackendNotFoundError        no backend of that name is registered
    │   ├── DeploymentMissingError      there is no deployment of that name, or it is not ready
    │   ├── CredentialsError            none, or such as the provider does not take; also an AccessDeniedError
    │   └── MissingExtraError           the backend is known, its packages are not installed
    ├── StoreError                      the object store
    │   ├── KeyMissingError             no object at the key
    │   ├── PreconditionError           `if_absent` and the key exists
    │   └── AccessDeniedError           credentials missing or not sufficient
    ├── ChannelError                    the channel between workers
    │   ├── FrameTooLargeError          a frame or publish over the channel's limits
    │   └── WireError                   bytes that are not a sound frame
    ├── ComputeError                    a worker could not be started
    ├── DeploymentError                 resources could not be made or removed
    ├── ServerError                     a server on this machine did not start, or ended
    └── RunError                        a run that did not finish; exit code 1
        ├── DeadlineError (TimeoutError)
        ├── WorkerFailedError           a worker ended with an error, or ended without a word
        └── AbortedError                a peer failed first: never the first cause

Every error carries `run`, `rank`, `layer`, `batch` and `peer` where they are known; the text names them.
Provider errors are translated into this tree in one place per backend.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

_Error = TypeVar("_Error", bound="FsdError")


class FsdError(Exception):
    """Base of all errors of the framework.

    `message` is one line: what is wrong, where, what to do. The keyword fields say where in a run it happened.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        run: str | None = None,
        rank: int | None = None,
        layer: int | None = None,
        batch: int | None = None,
        peer: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.run = run
        self.rank = rank
        self.layer = layer
        self.batch = batch
        self.peer = peer

    def at(
        self: _Error,
        *,
        run: str | None = None,
        rank: int | None = None,
        layer: int | None = None,
        batch: int | None = None,
        peer: int | None = None,
    ) -> _Error:
        """Fill in the places that are not known yet, and return this error."""
        self.run = self.run if self.run is not None else run
        self.rank = self.rank if self.rank is not None else rank
        self.layer = self.layer if self.layer is not None else layer
        self.batch = self.batch if self.batch is not None else batch
        self.peer = self.peer if self.peer is not None else peer
        return self

    @property
    def where(self) -> str:
        """The known places as text, such as ``run 5f… rank 3 layer 17``; empty if none is known."""
        places = (
            ("run", self.run),
            ("rank", self.rank),
            ("batch", self.batch),
            ("layer", self.layer),
            ("peer", self.peer),
        )
        return ", ".join(f"{name} {value}" for name, value in places if value is not None)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class InputError(FsdError, ValueError):
    """What the caller gave cannot be used."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration key that is not known, or a value that does not fit it."""


class FormatError(InputError):
    """A file that is not what it should be. `file` and `line` (1-based) say where."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        place = f"{file}:{line}: " if line is not None else f"{file}: " if file is not None else ""
        super().__init__(place + message)
        self.file = file
        self.line = line


class PlanError(InputError):
    """A partition or plan that does not fit the network, the workers or the run."""


class BackendNotFoundError(InputError):
    """No backend of that name is registered under the entry point group ``fsdcore.backends``."""


class DeploymentMissingError(InputError):
    """There is no deployment of that name, or it is not ready; the text names the command."""


class MissingExtraError(InputError):
    """The part asked for is known but its packages are not installed; the text names the command."""


class StoreError(FsdError):
    """The object store failed."""


class KeyMissingError(StoreError):
    """There is no object at the key."""


class PreconditionError(StoreError):
    """The object was to be written only if absent, and it exists."""


class AccessDeniedError(StoreError):
    """The store refused: credentials are missing or not sufficient."""


class CredentialsError(AccessDeniedError, InputError):
    """There are no credentials, or such as the provider does not take; the text says how to get some."""


class ChannelError(FsdError):
    """The channel between workers failed."""


class FrameTooLargeError(ChannelError):
    """A frame or a publish is over the limits of the channel."""


class WireError(ChannelError):
    """Bytes that are not a sound frame: wrong magic, version, size, checksum or content."""


class ComputeError(FsdError):
    """A worker could not be started."""


class ServerError(FsdError):
    """A server on this machine, such as an emulator of a service, did not start or ended."""


class DeploymentError(FsdError):
    """The resources of a deployment could not be made, looked at or removed."""


class RunError(FsdError):
    """A run that did not finish."""


class DeadlineError(RunError, TimeoutError):
    """A wait ended at its deadline; the text says what was waited for."""


class WorkerFailedError(RunError):
    """A worker ended with an error, or ended without a word."""


class AbortedError(RunError):
    """A peer failed and told this worker to stop. Never the first cause of a failed run."""
