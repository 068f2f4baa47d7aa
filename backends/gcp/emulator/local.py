"""Google Cloud on this machine as a whole: what `fsd emulate gcp` starts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from backends.gcp.emulator.environment import environment
from backends.gcp.emulator.functions import FunctionsServer
from backends.gcp.emulator.pubsub import PubsubServer
from backends.gcp.emulator.storage import StorageServer

__all__ = ["LocalGcp"]


class LocalGcp:
    """Cloud Storage, Pub/Sub and Cloud Functions; as a context manager it starts and stops them.

    `folder` keeps objects, sources and logs while they run. `seed` gives the order in which messages are delivered,
    negative for the order of arrival.
    """

    def __init__(self, folder: Path, seed: int = -1) -> None:
        self.storage = StorageServer(folder / "storage")
        self.pubsub = PubsubServer(seed=seed)
        self.functions = FunctionsServer(folder / "functions")
        self._running = ExitStack()

    @property
    def services(self) -> Mapping[str, str]:
        """Where each listens, for people."""
        return {
            "Cloud Storage": self.storage.url,
            "Pub/Sub": self.pubsub.target,
            "Cloud Functions": self.functions.url,
        }

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that lead the backend, and Google's own clients, to the servers that run."""
        return environment(self.storage, self.pubsub, self.functions)

    def start(self) -> Self:
        """`MissingExtraError` if a part is not installed, `ServerError` if one does not start; then none runs."""
        servers = (self.storage, self.pubsub, self.functions)
        with ExitStack() as running:
            for server in servers:
                # Also one that has not been started holds its port.
                running.callback(server.stop)
            for server in servers:
                server.start()
            self._running = running.pop_all()
        return self

    def stop(self) -> None:
        """End all. May be called twice."""
        self._running.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
