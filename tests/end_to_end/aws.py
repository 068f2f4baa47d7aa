"""AWS on this machine as a site: deployed by CloudFormation, with the package that Lambda would get."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backends.aws.backend import AwsBackend
from backends.aws.settings import AwsSettings
from fsdcore.backend import Backend
from fsdcore.channel import Address, Outgoing, Slot
from fsdcore.compute import Invocation
from fsdcore.wire import DATA, Body, build_frames
from tests.backends.aws.services import REGION, endpoint
from tests.end_to_end.sites import Site

__all__ = ["AwsSite", "deployed"]

_OLD_RUN = "0" * 16
# As text: ministack 1.5.33 drops the binary attributes of PublishBatch.
_SETTINGS = AwsSettings(name="site", region=REGION, topics=3, payload="text", timeout_seconds=300, memory_mb=1_024)


class AwsSite(Site):
    name = "aws"
    channels = AwsBackend.channels

    def __init__(self, environ: dict[str, str], workers: int) -> None:
        self._environ, self.most_workers = environ, workers
        self._loses = False
        self._faults: dict[str, Callable[[], None]] = {
            "every delivery comes again until it is deleted": partial(self._set_queues, VisibilityTimeout="0"),
            "every message is late": partial(self._set_queues, DelaySeconds="1"),
            "frames of an older run wait in the queues": self._leave_frames,
        }

    @property
    def environ(self) -> dict[str, str]:
        return self._environ

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(self._faults)

    def open(self) -> Backend:
        backend = AwsBackend(_SETTINGS)
        if self._loses:
            backend.compute.invoke = partial(_with_rank_1_lost, backend, backend.compute.invoke)  # type: ignore[method-assign]
        return backend

    def harm(self, fault: str) -> None:
        self._faults[fault]()

    def lose_a_worker(self) -> None:
        self._loses = True

    def heal(self) -> None:
        self._loses = False
        self._set_queues(VisibilityTimeout=str(_SETTINGS.visibility_timeout), DelaySeconds="0")

    def _set_queues(self, **attributes: str) -> None:
        with closing(AwsBackend(_SETTINGS)) as backend:
            sqs, deployment = backend.clients.client("sqs"), backend.deployment
            for rank in range(self.most_workers):
                url = deployment.queue_url(0, rank, sqs.meta.endpoint_url)
                sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)

    def _leave_frames(self) -> None:
        with closing(AwsBackend(_SETTINGS)) as backend:
            channel = backend.open_channel("queue", Address(_OLD_RUN, 0, self.most_workers))
            for target in range(1, self.most_workers):
                frames = build_frames(_OLD_RUN, Slot(DATA, 0, 2), 0, target, Body(1, b"old"), 1_000)
                channel.send([Outgoing(target, frame) for frame in frames])
            channel.close()


def _with_rank_1_lost(backend: AwsBackend, invoke: Callable[[Invocation], None], invocation: Invocation) -> None:
    """Start the run, with rank 1 taken by a worker that is no more."""
    backend.store.put(f"runs/{invocation.run}/claims/1", b"")
    invoke(invocation)


@contextmanager
def deployed(folder: Path, workers: int = 8) -> Iterator[AwsSite]:
    """A deployment for `workers`, removed in the end: nothing may be left of it."""
    with endpoint(folder) as url, pytest.MonkeyPatch.context() as patch:
        environ = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        for name, value in environ.items():
            patch.setenv(name, value)
        with closing(AwsBackend(_SETTINGS)) as backend:
            backend.provisioner().deploy(workers)
        patch.undo()
        yield AwsSite(environ, workers)
        for name, value in environ.items():
            patch.setenv(name, value)
        with closing(AwsBackend(_SETTINGS)) as backend:
            removal = backend.provisioner().destroy()
            assert removal.left == ()
            assert _resources(backend) == []


def _resources(backend: AwsBackend) -> list[str]:
    """What the account still has of queues, topics, functions and buckets."""
    client = backend.clients.client
    found: list[Any] = [
        *client("sqs").list_queues().get("QueueUrls", ()),
        *client("sns").list_topics()["Topics"],
        *client("lambda").list_functions()["Functions"],
        *client("s3").list_buckets()["Buckets"],
    ]
    return [str(item) for item in found]
