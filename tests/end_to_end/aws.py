"""AWS on this machine as a site: deployed by CloudFormation, with the package that Lambda would get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fsd_aws.backend import AwsBackend
from fsd_aws.settings import AwsSettings
from fsd_emulators.aws import LocalAws
from fsd_emulators.aws.records import RequestRecord
from fsdcore.client.session import Session
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.channel import Address, Outgoing, Slot
from fsdcore.faults import Crash, Disconnect, Duplicate, Fault, InPart, Refuse
from fsdcore.messages.frames import DATA, Body, build_frames
from fsdcore.record.record import BLOCK_BYTES
from fsdcore.worker.leases import LEASES
from tests.end_to_end.sites import Site

_OLD_RUN = "0" * 16
_SETTINGS = AwsSettings(name="site", topics=2, lanes=2, timeout_seconds=900, memory_mb=1_024, visibility_timeout=3)
_COUNTERS = {
    "PublishBatch": "publishes",
    "SendMessageBatch": "publishes",
    "ReceiveMessage": "receives",
    "DeleteMessageBatch": "acknowledges",
    "PutObject": "puts",
    "GetObject": "gets",
    "ListObjectsV2": "lists",
    "Invoke": "invocations",
}
_BATCHES = {"queue": "sns:PublishBatch", "sqs": "sqs:SendMessageBatch"}
_CALLS = (*_BATCHES.values(), "sqs:ReceiveMessage", "sqs:DeleteMessageBatch", "s3:GetObject", "s3:PutObject")


def _each(kind: type[Fault], calls: Iterable[str], **more: Any) -> list[Fault]:
    """A fault of the kind for each call of workers, counted for itself; once, if it is not said how often."""
    return [kind(call, by="worker", **{"times": 1, **more}) for call in calls]


_FAULTS: dict[str, list[Fault]] = {
    "throttling": _each(Refuse, (*_CALLS, "lambda:Invoke"), times=2),
    "server errors": _each(Refuse, _CALLS, error="InternalError", status=500, skip=1),
    "connections reset": _each(Disconnect, _CALLS, skip=2),
    "answers lost, so that requests are made twice": _each(Disconnect, _CALLS, when="after", skip=1),
    "events delivered twice": [Duplicate("lambda:Invoke")],
    "claims whose answers are lost": [Disconnect("s3:PutObject", "/claims/", times=3, when="after")],
    "messages beyond the rate, for which the sender is blamed": _each(
        InPart, _BATCHES.values(), error="Throttled", blames_sender=True, times=8
    ),
    "entries that fail": _each(InPart, (*_BATCHES.values(), "sqs:DeleteMessageBatch"), error="InternalError", times=3),
}
# The services that a channel has nothing to do with.
_UNUSED = {"queue": (), "sqs": ("sns:",), "object": ("sns:", "sqs:")}
# Objects that workers write for each other.
_ROWS = "/x/"
_LOSSES: dict[str, list[Fault]] = {
    "before it computes": _each(Crash, ["s3:GetObject"], about="/inputs/", skip=1),
    "before it begins": _each(Crash, ["s3:PutObject"], about="/claims/1"),
    "before it starts others": _each(Crash, ["lambda:Invoke"]),
    "while it sends": [
        *_each(Crash, _BATCHES.values(), skip=3),
        *_each(Crash, ["s3:PutObject"], about=_ROWS, skip=3),
    ],
    "while it receives": [
        *_each(Crash, ["sqs:ReceiveMessage"], skip=5),
        *_each(Crash, ["s3:GetObject"], about=_ROWS, skip=5),
    ],
    "once its outputs are there": _each(Crash, ["s3:PutObject"], about="/outputs/", skip=1),
}


class AwsSite(Site):
    """`local` is where the deployment is, for `workers`."""

    name = "aws"
    channels = AwsBackend.channels

    def __init__(self, local: LocalAws, workers: int, settings: AwsSettings) -> None:
        self._local, self.most_workers = local, workers
        self._start = self._harmed = 0
        self._others: dict[str, Callable[[], None]] = {
            "every delivery comes again until it is deleted": partial(self._set_queues, VisibilityTimeout="0"),
            "every message is late": partial(self._set_queues, DelaySeconds="1"),
            "frames of an older run wait": self._leave_frames,
        }
        self._settings = settings

    @property
    def environ(self) -> Mapping[str, str]:
        return self._local.environment

    @property
    def of_commands(self) -> Mapping[str, str]:
        return {"FSD_AWS_NAME": self._settings.name}

    def busy(self) -> int:
        return sum(bool(environment.event) for environment in self._local.environments())

    def faults(self, channel: str) -> tuple[str, ...]:
        unused = _UNUSED[channel]
        made = [name for name, rules in _FAULTS.items() if not all(rule.calls.startswith(unused) for rule in rules)]
        return (*made, *(self._others if channel != "object" else ()))

    def open(self) -> Backend:
        return AwsBackend(self._settings)

    def session(self, **run: Any) -> Session:
        self._start = self._latest(self._start)
        return super().session(**run)

    def harm(self, fault: str) -> None:
        if fault in _FAULTS:
            self._make(_FAULTS[fault])
        else:
            self._others[fault]()

    def harmed(self) -> bool:
        return not self._harmed or any(record.fault for record in self._local.requests(self._harmed))

    @property
    def losses(self) -> tuple[str, ...]:
        return tuple(_LOSSES)

    def lose_a_worker(self, when: str) -> None:
        self._make(_LOSSES[when])

    def block(self, channel: str) -> str:
        call, about = _BATCHES.get(channel, "s3:PutObject"), _ROWS if channel == "object" else ""
        self._make([Refuse(call, about, by="worker", error="InternalError", status=500)])
        return "InternalError"

    def _make(self, rules: list[Fault]) -> None:
        self._harmed = self._latest(self._harmed)
        self._local.set_faults(*rules)

    def _latest(self, since: int) -> int:
        """The number of the last request."""
        return max((record.number for record in self._local.requests(since)), default=since)

    def heal(self) -> None:
        self._local.set_faults()
        self._harmed = 0
        self._set_queues(VisibilityTimeout=str(self._settings.visibility_timeout), DelaySeconds="0")

    def requests(self, run: str) -> Counter[str]:
        """Of the last session, whose only run this was."""
        seen = Counter(
            _COUNTERS[record.action]
            for record in self._local.requests(self._start)
            if record.action in _COUNTERS and _is_of_run(record, run)
        )
        # One to find the plan, two for the lane, where the channel has lanes, and two to clean up: that no run counts.
        seen["lists"] -= 5 if seen["receives"] else 3
        return seen

    def figures(self, run: str) -> Mapping[str, float]:
        """Of messages the bytes and the started blocks of 64 KiB, which SNS and SQS count for what is sent."""
        records = self._local.requests(self._start)
        sends = [record for record in records if _COUNTERS.get(record.action) == "publishes"]
        receives = [record for record in records if record.action == "ReceiveMessage" and record.source]
        seen = self.requests(run)
        return {
            **seen,
            "messages": sum(record.entries for record in sends),
            "billed_bytes": sum(record.billed_bytes for record in sends),
            "billed_blocks": sum(-(-record.billed_bytes // BLOCK_BYTES) for record in sends),
            "layer_puts": sum(
                record.action == "PutObject" and f"/runs/{run}/x/{DATA}-" in record.resource for record in records
            ),
            "empty_share": sum(not record.entries for record in receives) / max(len(receives), 1),
        }

    def _set_queues(self, **attributes: str) -> None:
        with closing(AwsBackend(self._settings)) as backend:
            sqs, deployment = backend.clients.client("sqs"), backend.deployment
            for rank in range(self.most_workers):
                url = deployment.queue_url(0, rank, sqs.meta.endpoint_url)
                sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)

    def _leave_frames(self) -> None:
        with closing(AwsBackend(self._settings)) as backend:
            channel = backend.open_channel("queue", Address(_OLD_RUN, 0, self.most_workers))
            for target in range(1, self.most_workers):
                frames = build_frames(_OLD_RUN, Slot(DATA, 0, 2), 0, target, Body(1, b"old"), 1_000)
                channel.send([Outgoing(target, frame) for frame in frames])
            channel.close()


def _is_of_run(record: RequestRecord, run: str) -> bool:
    """Whether the run itself made the request, not the client that loads a plan or takes a lane."""
    if record.service != "s3" or record.action == "ListObjectsV2":
        return True
    if f"/{LEASES}" in record.resource:
        return False
    return f"/runs/{run}/" in record.resource or record.source != ""


@contextmanager
def deployed(folder: Path, workers: int = 62, **settings: Any) -> Iterator[AwsSite]:
    """A deployment for `workers`, removed in the end: nothing may be left of it."""
    chosen = replace(_SETTINGS, **settings)
    with LocalAws(folder) as local, pytest.MonkeyPatch.context() as patch:
        for name, value in local.environment.items():
            patch.setenv(name, value)
        with closing(AwsBackend(chosen)) as backend:
            backend.provisioner().deploy(workers)
        patch.undo()
        yield AwsSite(local, workers, chosen)
        for name, value in local.environment.items():
            patch.setenv(name, value)
        with closing(AwsBackend(chosen)) as backend:
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
