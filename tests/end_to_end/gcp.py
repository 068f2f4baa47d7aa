"""Google Cloud on this machine as a site: deployed with the source zip that Cloud Functions would get."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from google.auth.compute_engine import _metadata

from fsd_emulators.gcp.calls import Call
from fsd_emulators.gcp.environment import PROJECT, REGION, environment
from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.identities import MetadataServer
from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_emulators.gcp.storage import StorageServer
from fsd_gcp.backend import GcpBackend
from fsd_gcp.settings import GcpSettings
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Outgoing, Slot
from fsdcore.faults import Crash, Delay, Disconnect, Drop, Duplicate, Fault, InPart, Refuse
from fsdcore.messages.frames import DATA, Body, build_frames
from tests.end_to_end.sites import Site

# A machine of Google's, which is a caller.
_MACHINE = "123-compute@developer.gserviceaccount.com"
_OLD_RUN = "0" * 16
_LATE_SECONDS, _LOOK_SECONDS = 3.0, 0.05
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
_KINDS = "put list delete stat"
_STORAGE: dict[str, list[Fault]] = {
    "objects refused for a moment": [
        Refuse(_KINDS, share=0.05, seed=1),
        Refuse(_KINDS, share=0.05, seed=1, error="RESOURCE_EXHAUSTED"),
    ],
    "connections to the store reset": [
        Disconnect(_KINDS, share=0.05, seed=2),
        Disconnect(_KINDS, share=0.05, seed=2, when="after"),
    ],
    "objects late": [Delay(share=0.2, seed=9, seconds=0.2)],
}
# Of these objects the queue has none.
_ROWS: dict[str, list[Fault]] = {
    "rows refused, late and cut short": [
        Refuse(about="/x/", share=0.1, seed=10),
        Refuse(about="/x/", share=0.1, seed=10, error="RESOURCE_EXHAUSTED"),
        Disconnect(about="/x/", share=0.1, seed=10),
        Disconnect(about="/x/", share=0.1, seed=10, when="within"),
        Delay(about="/x/", share=0.1, seed=10, seconds=0.2),
    ],
}
_PUBSUB: dict[str, list[Fault]] = {
    "messages delivered twice": [Duplicate("Publish", share=0.3, seed=3)],
    "messages late": [Delay("Publish", share=0.3, seed=4, seconds=0.2)],
    "queues refuse for a moment": [Refuse(share=0.1, seed=5)],
    "pulls answered in part and empty": [InPart("Pull", share=0.5, seed=14)],
    "queues throttle": [Refuse(share=0.1, seed=11, error="RESOURCE_EXHAUSTED")],
    "answers of publishes lost, so that they are made twice": [Disconnect("Publish", share=0.2, seed=12, when="after")],
    "messages come again after they were taken in": [Drop("Acknowledge", share=0.7, seed=13)],
}
# The first start meets each fault of starts, so that a run of one worker does too.
_FUNCTIONS: dict[str, list[Fault]] = {
    "no instance at first": [
        Refuse("invoke", share=0.2, seed=4),
        Refuse("invoke", share=0.2, seed=4, error="RESOURCE_EXHAUSTED"),
    ],
    "workers started twice": [Duplicate("invoke")],
    "starts aborted with 500": [Refuse("invoke", share=0.4, seed=4, error="INTERNAL")],
    "connections that go silent": [Disconnect("invoke", share=0.5, seed=4, seconds=1.0)],
    "callers cut off": [Disconnect("invoke", share=0.3, seed=4)],
    "an instance killed before its worker begins": [Crash("invoke", '"rank":2,', times=1)],
}


class _LateRoles:
    """Roles that are in force some seconds after the first start that was refused for want of one."""

    def __init__(self, functions: FunctionsServer) -> None:
        self._functions, self._over = functions, threading.Event()
        self._waits: threading.Thread | None = None

    def delay(self) -> None:
        self._over.clear()
        self._functions.management.roles_late_until = math.inf
        self._waits = threading.Thread(target=self._wait)
        self._waits.start()

    def _wait(self) -> None:
        while not self.met() and not self._over.wait(_LOOK_SECONDS):
            pass
        self._over.wait(_LATE_SECONDS)
        self._functions.management.roles_late_until = 0.0

    def met(self) -> bool:
        """Whether a start was refused."""
        return self._functions.log.count("invoke", "403") > 0

    def settle(self) -> None:
        """All are in force."""
        self._over.set()
        if self._waits is not None:
            self._waits.join()


class GcpSite(Site):
    """`workers` is what the deployment is for."""

    name = "gcp"
    channels = GcpBackend.channels

    def __init__(self, storage: StorageServer, pubsub: PubsubServer, functions: FunctionsServer, workers: int) -> None:
        self._storage, self._pubsub, self._functions = storage, pubsub, functions
        self.most_workers = workers
        self._services = (storage, pubsub, functions)
        self._roles = _LateRoles(functions)
        self._ended = 0
        self._harms: dict[str, Callable[[], None]] = {
            **{name: partial(storage.faults.set, *faults) for name, faults in _STORAGE.items()},
            **{name: partial(functions.faults.set, *faults) for name, faults in _FUNCTIONS.items()},
            "instances ended between runs": self._end_instances,
            "roles not in force at first": self._roles.delay,
            "all of these together": self._harm_all,
        }
        # Of the others the servers count what they made go wrong.
        self._met: dict[str, Callable[[], bool]] = {
            "instances ended between runs": lambda: self._ended > 0,
            "roles not in force at first": self._roles.met,
            "all of these together": self._met_all,
            "frames of an older run wait in the queues": lambda: True,
        }
        self._fault = ""
        self._object_harms: dict[str, Callable[[], None]] = {
            name: partial(storage.faults.set, *faults) for name, faults in _ROWS.items()
        }
        self._queue_harms: dict[str, Callable[[], None]] = {
            **{name: partial(pubsub.faults.set, *faults) for name, faults in _PUBSUB.items()},
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
            callers=f"serviceAccount:{_MACHINE}",
            storage_endpoint=self._storage.url,
            pubsub_endpoint=self._pubsub.target,
            functions_endpoint=self._functions.url,
        )

    @property
    def of_commands(self) -> Mapping[str, str]:
        return {"FSD_GCP_NAME": self.settings.name}

    @contextmanager
    def on_a_machine(self, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """In the block clients have an identity, and need a role to start a worker; else they do not say who they are.

        In `folder` there are no credentials of anybody else.
        """
        server = MetadataServer(PROJECT, _MACHINE)
        server.open()
        patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        for name, value in {**server.environment, "CLOUDSDK_CONFIG": str(folder)}.items():
            patch.setenv(name, value)
        # What Google's library has read of that when it was imported.
        patch.setattr(_metadata, "_GCE_METADATA_HOST", server.environment["GCE_METADATA_HOST"])
        try:
            yield
        finally:
            server.end()

    def busy(self) -> int:
        return self._functions.busy()

    def faults(self, channel: str) -> tuple[str, ...]:
        own = self._object_harms if channel == "object" else self._queue_harms
        # What comes by a stream is not pulled.
        return tuple(fault for fault in (*self._harms, *own) if channel != "stream" or not fault.startswith("pulls"))

    def open(self) -> Backend:
        return GcpBackend(self.settings)

    def session(self, **run: Any) -> Any:
        for server in self._services:
            server.log.clear()
        return super().session(**run)

    def harm(self, fault: str) -> None:
        {**self._harms, **self._object_harms, **self._queue_harms}[fault]()
        self._fault = fault

    def harmed(self) -> bool:
        return self._met.get(self._fault, self._made_any)()

    def _made_any(self) -> bool:
        return any(server.faults.made for server in self._services)

    def _met_all(self) -> bool:
        """Each of them, as far as the run asked for what has it."""
        pulled = self._pubsub.log.count("Pull", None) > 0
        return self._roles.met() and self._functions.faults.made > 0 and (self._pubsub.faults.made > 0 or not pulled)

    def block(self, channel: str) -> str:
        if channel == "object":
            self._storage.faults.set(Refuse("put", f"/x/{DATA}-"))
        else:
            self._pubsub.faults.set(Refuse("Publish"))
        return "503|UNAVAILABLE|unable to fulfill"

    def lose_a_worker(self, when: str) -> None:
        del when
        self._functions.faults.set(Crash("invoke", '"rank":1,', seconds=0.1))

    def withhold_a_worker(self) -> bool:
        self._functions.faults.set(Crash("invoke", '"rank":1,'))
        return True

    def heal(self) -> None:
        for server in self._services:
            server.faults.set()
        self._roles.settle()

    def requests(self, run: str) -> Counter[str]:
        """Of the last session, whose only run this was."""
        calls = [call for server in self._services for call in server.log]
        counted = (call for call in calls if call.kind in _COUNTERS and _is_of_run(call, run))
        seen = Counter(_COUNTERS[call.kind] for call in counted)
        # One to find the plan, two for the lane, where the channel has lanes, and two to clean up: that no run counts.
        seen["lists"] -= 5 if seen["publishes"] else 3
        return seen

    def figures(self, run: str) -> Mapping[str, float]:
        """Of messages the bytes that were published, and of objects those that carry rows of a layer."""
        rows = f"/runs/{run}/x/{DATA}-"
        return {
            **self.requests(run),
            "published_bytes": sum(call.size for call in self._pubsub.log.of("Publish")),
            "layer_puts": sum(rows in call.resource for call in self._storage.log.of("put")),
        }

    def _harm_all(self) -> None:
        """What a real project is likely to do, all at once."""
        self._roles.delay()
        self._functions.faults.set(
            Refuse("invoke", share=0.2, seed=4, error="INTERNAL"),
            Refuse("invoke", share=0.1, seed=4, error="RESOURCE_EXHAUSTED"),
            Disconnect("invoke", share=0.2, seed=4, seconds=1.0),
        )
        self._pubsub.faults.set(
            InPart("Pull", share=0.4, seed=18), Refuse(share=0.05, seed=18), Duplicate("Publish", share=0.1, seed=18)
        )

    def _end_instances(self) -> None:
        self._ended = self._functions.kill_instances(busy=False)

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
