"""The services of a backend on this machine: for trying things out and for tests, with no account and no cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Self


class Server(ABC):
    """Something that serves on this machine; as a context manager it starts and stops."""

    @abstractmethod
    def start(self) -> Self:
        """Begin to serve; returns when it answers. `ServerError` if it does not; then nothing of it runs."""

    @abstractmethod
    def stop(self) -> None:
        """End it and all that it started. May be called twice."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Emulator(Server):
    """Servers that stand in for a provider's; as a context manager it starts and stops them.

    They listen on this machine alone, keep what they are given while they run, and leave no process behind.
    """

    @property
    @abstractmethod
    def services(self) -> Mapping[str, str]:
        """The name of each service and where it listens, for people. Once started."""

    @property
    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """The variables that lead the backend, and the provider's own clients, to the servers. Once started."""

    @abstractmethod
    def start(self) -> Self:
        """Start all servers; returns when they answer.

        `MissingExtraError` if a part is not installed, `ServerError` if one does not start; then none runs.
        """
