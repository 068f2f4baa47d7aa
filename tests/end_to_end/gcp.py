"""Google Cloud on this machine as a site: deployed with the source zip that Cloud Functions would get."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backends.gcp.backend import GcpBackend
from backends.gcp.emulator.calls import Call
from backends.gcp.emulator.environment import PROJECT, REGION, environment
from backends.gcp.emulator.functions import FunctionsFaults, FunctionsServer
from backends.gcp.emulator.pubsub import PubsubFaults, PubsubServer
from backends.gcp.emulator.storage import StorageFaults, StorageServer
from backends.gcp.settings import GcpSettings
from fsdcore.backend import Backend
from fsdcore.channel import Address, Outgoing, Slot
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.wire import DATA, Body, build_frames
from tests.end_to_end.sites import Site

__all__ = ["GcpSite", "deployed"]

_OLD_RUN = "0" * 16
_LATE_SECONDS = 3.0
# What workers alone read of a plan.
_PART = re.compile(r"/plans/[^/]+/[^/]+/\d+$")
_COUNTERS = {
    "Publish": "publishes",
    "Pull": "receives",
    "Acknowledge": "acknowledges",
    "put": "puts",
    "get": "gets",
    "list": "lists",
    "invoke": "invocations",
}
# Google's client leaves the sockets of downloads that fail to the collector. So downloads fail in workers alone.
_KINDS = ("put", "list", "delete", "stat")
_STORAGE: dict[str, StorageFaults] = {
    "objects refused for a moment": StorageFaults(seed=1, unavailable=0.05, throttled=0.05, kinds=_KINDS),
    "connections to the store reset": StorageFaults(seed=2, reset=0.05, lost_response=0.05, kinds=_KINDS),
    "objects late": StorageFaults(seed=9, delay=0.2),
}
# Of these objects the queue has none.
_ROWS: dict[str, StorageFaults] = {
    "rows refused, late and cut short": StorageFaults(
        seed=10, unavailable=0.1, throttled=0.1, reset=0.1, cut_short=0.1, delay=0.1, within="/x/"
    ),
}
_PUBSUB: dict[str, PubsubFaults] = {
    "messages delivered twice": PubsubFaults(seed=3, duplicate=0.3),
    "messages late": PubsubFaults(seed=4, delay=0.3),
    "queues refuse for a moment": PubsubFaults(seed=5, unavailable=0.1),
    "pulls answered in part and empty": PubsubFaults(seed=14, in_part=0.5),
    "queues throttle": PubsubFaults(seed=11, exhausted=0.1),
    "answers of publishes lost, so that they are made twice": PubsubFaults(seed=12, lost_response=0.2),
    "messages come again after they were taken in": PubsubFaults(seed=13, forget=0.7, hold_seconds=0.1),
}
_FUNCTIONS: dict[str, FunctionsFaults] = {
    "no instance at first": FunctionsFaults(seed=6, unavailable=0.2, throttled=0.2),
    "workers started twice": FunctionsFaults(seed=7, twice=1.0),
    "starts aborted with 500": FunctionsFaults(seed=15, aborted=0.4),
    "connections that go silent": FunctionsFaults(seed=16, silent=0.5),
    "callers cut off": FunctionsFaults(seed=8, cut_off=0.3),
    "an instance killed before its worker begins": FunctionsFaults(kill=b'"rank":2,', kill_times=1),
}
# Of these the servers tell whether they have struck.
_SEEN = frozenset((*_STORAGE, *_ROWS, *_PUBSUB, *_FUNCTIONS))


class GcpSite(Site):
    """`workers` is what the deployment is for."""

    name = "gcp"
    channels = GcpBackend.channels

    def __init__(self, storage: StorageServer, pubsub: PubsubServer, functions: FunctionsServer, workers: int) -> None:
        self._storage, self._pubsub, self._functions = storage, pubsub, functions
        self.most_workers = workers
        self._services = (storage, pubsub, functions)
        self._shows = False
        self._harms: dict[str, Callable[[], None]] = {
            **{name: partial(setattr, storage, "faults", fault) for name, fault in _STORAGE.items()},
            **{name: partial(setattr, functions, "faults", fault) for name, fault in _FUNCTIONS.items()},
            "instances ended between runs": self._end_instances,
            "roles not in force at first": self._delay_roles,
            "all of these together": self._harm_all,
        }
        self._object_harms: dict[str, Callable[[], None]] = {
            name: partial(setattr, storage, "faults", fault) for name, fault in _ROWS.items()
        }
        self._queue_harms: dict[str, Callable[[], None]] = {
            **{name: partial(setattr, pubsub, "faults", fault) for name, fault in _PUBSUB.items()},
            "frames of an older run wait in the queues": self._leave_frames,
        }

    @property
    def environ(self) -> Mapping[str, str]:
        return environment(self._storage, self._pubsub, self._functions)

    @property
    def settings(self) -> GcpSettings:
        """Of the deployment."""
        return GcpSettings(
            name="site",
            project=PROJECT,
            region=REGION,
            memory_mb=1_024,
            timeout_seconds=300,
            ack_deadline=10,
            storage_endpoint=self._storage.url,
            pubsub_endpoint=self._pubsub.target,
            functions_endpoint=self._functions.url,
        )

    @property
    def of_commands(self) -> Mapping[str, str]:
        return {"FSD_GCP_NAME": self.settings.name}

    def busy(self) -> int:
        return self._functions.busy()

    def faults(self, channel: str) -> tuple[str, ...]:
        return (*self._harms, *(self._object_harms if channel == "object" else self._queue_harms))

    def open(self) -> Backend:
        return GcpBackend(self.settings)

    def session(self, **run: Any) -> Any:
        for server in self._services:
            server.log.clear()
        return super().session(**run)

    def harm(self, fault: str) -> None:
        {**self._harms, **self._object_harms, **self._queue_harms}[fault]()
        self._shows = fault in _SEEN

    def harmed(self) -> bool:
        return not self._shows or any(server.struck for server in self._services)

    def block(self, channel: str) -> str:
        if channel == "object":
            self._storage.faults = StorageFaults(unavailable=1.0, kinds=("put",), within=f"/x/{DATA}-")
        else:
            self._pubsub.faults = PubsubFaults(unavailable=1.0, methods=("Publish",))
        return "503|UNAVAILABLE|unable to fulfill"

    def lose_a_worker(self, when: str) -> None:
        del when
        self._functions.faults = FunctionsFaults(kill=b'"rank":1,', kill_after=0.1)

    def withhold_a_worker(self) -> bool:
        self._functions.faults = FunctionsFaults(kill=b'"rank":1,')
        return True

    def heal(self) -> None:
        self._storage.faults, self._pubsub.faults = StorageFaults(), PubsubFaults()
        self._functions.faults = FunctionsFaults()
        self._functions.management.late_until = 0.0

    def requests(self, run: str) -> Counter[str]:
        """Of the last session, whose only run this was."""
        calls = [call for server in self._services for call in server.log]
        counted = (call for call in calls if call.kind in _COUNTERS and _is_of_run(call, run))
        seen = Counter(_COUNTERS[call.kind] for call in counted)
        # One to find the plan, two for the lane, where the channel has lanes, and two to clean up: that no run counts.
        seen["lists"] -= 5 if seen["receives"] else 3
        return seen

    def figures(self, run: str) -> Mapping[str, float]:
        """Of messages the bytes that were published, and of objects those that carry rows of a layer."""
        rows = f"/runs/{run}/x/{DATA}-"
        return {
            **self.requests(run),
            "published_bytes": sum(call.size for call in self._pubsub.log.of("Publish")),
            "layer_puts": sum(rows in call.resource for call in self._storage.log.of("put")),
        }

    def _delay_roles(self) -> None:
        self._functions.management.late_until = SYSTEM_CLOCK.wall() + _LATE_SECONDS

    def _harm_all(self) -> None:
        """What a real project is likely to do, all at once."""
        self._delay_roles()
        self._functions.faults = FunctionsFaults(seed=17, aborted=0.2, throttled=0.1, silent=0.2)
        self._pubsub.faults = PubsubFaults(seed=18, in_part=0.4, unavailable=0.05, duplicate=0.1)

    def _end_instances(self) -> None:
        self._functions.kill_instances(busy=False)

    def _leave_frames(self) -> None:
        with closing(self.open()) as backend:
            channel = backend.open_channel("queue", Address(_OLD_RUN, 0, self.most_workers))
            for target in range(1, self.most_workers):
                frames = build_frames(_OLD_RUN, Slot(DATA, 0, 2), 0, target, Body(1, b"old"), 1_000)
                for frame in frames:
                    channel.send([Outgoing(target, frame)])
            channel.close()


def _is_of_run(call: Call, run: str) -> bool:
    """Whether the run itself made the call, not the client that loads a plan or takes a lane."""
    if call.kind not in ("put", "get"):
        return True
    return f"/runs/{run}/" in call.resource or (call.kind == "get" and _PART.search(call.resource) is not None)


@contextmanager
def deployed(folder: Path, workers: int = 62) -> Iterator[GcpSite]:
    """A deployment for `workers`, removed in the end: nothing may be left of it."""
    storage, pubsub = StorageServer(folder / "storage"), PubsubServer()
    with storage, pubsub, FunctionsServer(folder / "functions") as functions:
        site = GcpSite(storage, pubsub, functions, workers)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
            with closing(GcpBackend(site.settings)) as backend:
                assert backend.provisioner().deploy(workers).ready
        yield site
        with closing(GcpBackend(site.settings)) as backend:
            assert backend.provisioner().destroy().left == ()
            assert backend.provisioner().status().resources == ()
