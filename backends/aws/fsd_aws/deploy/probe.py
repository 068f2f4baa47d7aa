"""Whether messages arrive: filters of new subscriptions take effect some time after CloudFormation has made them.

AWS says up to 15 minutes. Until then a queue gets every message of a topic, or none. So each new pair of a topic and a
queue is sent one message, again and again, until each queue gets its own and no other's.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from fsd_aws.clients import Clients
from fsd_aws.deploy.stacks import asking
from fsd_aws.deployment import Deployment
from fsd_aws.queue import TARGET
from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.errors import DeploymentError
from fsdcore.record.observer import Observer, notice

# What AWS says it may take, and a little more.
_LONGEST_SECONDS = 960.0
_ROUND_SECONDS, _PAUSE_SECONDS = 10.0, 2.0
_THREADS, _ENTRIES = 16, 10
_LAST_LOOK_SECONDS = 1
# No worker takes it for a frame: it is not base64.
_WORD = "fsd probe"


class Pair(NamedTuple):
    """A topic, and a queue that is subscribed to it."""

    shard: int
    lane: int
    rank: int


def new_pairs(deployment: Deployment, before: Deployment | None) -> list[Pair]:
    """The subscriptions that `before` had not."""

    def known(pair: Pair) -> bool:
        return (
            before is not None
            and pair.shard < before.topics
            and pair.lane < before.lanes
            and pair.rank < before.workers
        )

    every = (
        Pair(shard, lane, rank)
        for shard in range(deployment.topics)
        for lane in range(deployment.lanes)
        for rank in range(deployment.workers)
    )
    return [pair for pair in every if not known(pair)]


def await_delivery(
    clients: Clients, deployment: Deployment, pairs: Sequence[Pair], observer: Observer, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Return once each pair's message arrives, and at no other queue; `DeploymentError` after 16 minutes."""
    probe, deadline, told = _Probe(clients, deployment), Deadline.after(_LONGEST_SECONDS, clock), False
    while pairs:
        missing, strays = probe.round(pairs, observer)
        if not missing and not strays:
            return
        state = f"{missing:,} of {len(pairs):,} messages do not arrive and {strays:,} arrive where they must not"
        if deadline.passed():
            raise DeploymentError(
                f"filters of topics have not taken effect in {_LONGEST_SECONDS / 60:.0f} minutes: {state}; run the "
                "command again"
            )
        if not told:
            notice(observer, f"waiting until the filters of new subscriptions take effect, up to 15 minutes: {state}")
            told = True
        clock.sleep(_PAUSE_SECONDS)


class _Probe:
    def __init__(self, clients: Clients, deployment: Deployment) -> None:
        self._deployment = deployment
        self._sns, self._sqs = clients.client("sns"), clients.client("sqs")
        self._clients = clients

    def round(self, pairs: Sequence[Pair], observer: Observer) -> tuple[int, int]:
        """Send one message for each pair: how many did not arrive, and how many arrived at another queue."""
        token = secrets.token_hex(8)
        with asking(self._clients, "sending messages to see whether they arrive"):
            self._publish(pairs, token)
        wanted: dict[tuple[int, int], set[int]] = {}
        for pair in pairs:
            wanted.setdefault((pair.lane, pair.rank), set()).add(pair.shard)
        missing = strays = 0
        with (
            asking(self._clients, "looking whether messages arrive"),
            ThreadPoolExecutor(min(_THREADS, len(wanted)), thread_name_prefix="fsd-probe") as threads,
        ):
            found = threads.map(lambda queue: self._gathered(queue, wanted[queue], token), wanted)
            for number, (absent, other) in enumerate(found, 1):
                missing, strays = missing + absent, strays + other
                observer.progress("deliveries", number, len(wanted))
        return missing, strays

    def _publish(self, pairs: Sequence[Pair], token: str) -> None:
        deployment = self._deployment
        for shard in sorted({pair.shard for pair in pairs}):
            mine = [pair for pair in pairs if pair.shard == shard]
            for start in range(0, len(mine), _ENTRIES):
                entries = [_entry(deployment, pair, token) for pair in mine[start : start + _ENTRIES]]
                self._sns.publish_batch(TopicArn=deployment.topic_arn(shard), PublishBatchRequestEntries=entries)

    def _gathered(self, queue: tuple[int, int], shards: set[int], token: str) -> tuple[int, int]:
        """Of one queue: how many of its messages did not come, and how many of others did."""
        lane, rank = queue
        url = self._deployment.queue_url(lane, rank, self._sqs.meta.endpoint_url)
        deadline, strays, left = Deadline.after(_ROUND_SECONDS, SYSTEM_CLOCK), 0, set(shards)
        while not deadline.passed():
            seconds = int(_ROUND_SECONDS) if left else _LAST_LOOK_SECONDS
            bodies = self._received(url, seconds)
            for body in bodies:
                word, _, rest = body.partition(f" {token} ")
                target, _, shard = rest.partition(" ")
                if word != _WORD:
                    continue
                if target == self._deployment.target(lane, rank):
                    left.discard(int(shard))
                else:
                    strays += 1
            if not left and not bodies:
                break
        return len(left), strays

    def _received(self, url: str, seconds: int) -> list[str]:
        """Messages of probes, of whatever round, taken from the queue; a run's frames stay as they are."""
        answer = self._sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=_ENTRIES, WaitTimeSeconds=seconds, VisibilityTimeout=0
        )
        found = [message for message in answer.get("Messages", ()) if message["Body"].startswith(_WORD)]
        for message in found:
            self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return [message["Body"] for message in found]


def _entry(deployment: Deployment, pair: Pair, token: str) -> dict[str, Any]:
    target = deployment.target(pair.lane, pair.rank)
    return {
        "Id": f"{pair.lane}-{pair.rank}",
        "Message": f"{_WORD} {token} {target} {pair.shard}",
        "MessageAttributes": {TARGET: {"DataType": "String", "StringValue": target}},
    }
