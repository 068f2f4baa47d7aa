"""Google Cloud on this machine as a whole: what `fsd emulate gcp` starts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from fsd_emulators.gcp.environment import environment
from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_emulators.gcp.storage import StorageServer
from fsd_emulators.server import Emulator


class LocalGcp(Emulator):
    """Cloud Storage, Pub/Sub and Cloud Functions; as a context manager it starts and stops them.

    `folder` keeps sources and logs; objects and messages are in memory. `seed` gives the order in which messages are
    delivered, negative for the order of arrival.
    """

    def __init__(self, folder: Path, seed: int = -1) -> None:
        self.storage = StorageServer(folder / "storage")
        self.pubsub = PubsubServer(seed=seed)
        self.functions = FunctionsServer(folder / "functions")
        self._running = ExitStack()

    @property
    def services(self) -> Mapping[str, str]:
        return {
            "Cloud Storage": self.storage.url,
            "Pub/Sub": self.pubsub.target,
            "Cloud Functions": self.functions.url,
        }

    @property
    def environment(self) -> Mapping[str, str]:
        return environment(self.storage, self.pubsub, self.functions)

    def start(self) -> Self:
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
        self._running.close()
