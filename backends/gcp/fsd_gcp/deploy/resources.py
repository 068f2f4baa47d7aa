"""Topics and subscriptions of a deployment: one of each for every rank of every lane.

A subscription has no filter: Pub/Sub bills what a filter drops as if it had been delivered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from google.api_core import exceptions
from google.cloud import storage
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.subscriber import SubscriberClient
from google.pubsub_v1.types import ExpirationPolicy, Subscription, Topic

from fsd_gcp.calls.clients import Clients
from fsd_gcp.calls.errors import is_disabled
from fsd_gcp.deploy.claims import Claim, by_labels, elsewhere
from fsd_gcp.deployment import LABEL, REGION_LABEL, Deployment
from fsd_gcp.settings import is_region

_IN_FLIGHT = 16
_TIMEOUT = 60.0
_PAGE = 1_000
# What nobody pulls is forgotten after this: longer than any function lives.
_RETENTION_SECONDS = 2 * 3_600

_Item = TypeVar("_Item")


class Queues(NamedTuple):
    """Names of topics and of subscriptions."""

    topics: list[str]
    subscriptions: list[str]


def subscription_of(deployment: Deployment, lane: int, rank: int) -> Subscription:
    """The subscription of a rank, as it is made."""
    return Subscription(
        name=deployment.subscription(lane, rank),
        topic=deployment.topic(lane, rank),
        ack_deadline_seconds=deployment.ack_deadline,
        message_retention_duration=Duration(seconds=_RETENTION_SECONDS),
        # Without a policy of its own, a subscription that is idle for 31 days is removed.
        expiration_policy=ExpirationPolicy(),
        labels=deployment.labels,
    )


def _for_each(call: Callable[[_Item], Any], items: Iterable[_Item], told: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        for number, _ in enumerate(pool.map(call, items), start=1):
            told(number)


def make_queues(clients: Clients, deployment: Deployment, told: Callable[[int], None] = lambda _: None) -> None:
    """Make what is missing, replace what differs; `told` hears how many ranks of all lanes have theirs."""
    publisher, subscriber = clients.publisher, clients.subscriber

    def make(endpoint: tuple[int, int]) -> None:
        _make_topic(publisher, deployment, deployment.topic(*endpoint))
        _subscribe(subscriber, deployment, subscription_of(deployment, *endpoint))

    _for_each(make, deployment.endpoints(), told)


def _make_topic(publisher: PublisherClient, deployment: Deployment, name: str) -> None:
    try:
        publisher.create_topic(request=Topic(name=name, labels=deployment.labels), timeout=_TIMEOUT)
    except exceptions.AlreadyExists:
        _require_own(deployment, publisher.get_topic(request={"topic": name}, timeout=_TIMEOUT))


def _subscribe(subscriber: SubscriberClient, deployment: Deployment, wanted: Subscription) -> None:
    """Make a subscription; one of another topic, such as one that is gone, or with another deadline is replaced."""
    try:
        subscriber.create_subscription(request=wanted, timeout=_TIMEOUT)
    except exceptions.AlreadyExists:
        found = subscriber.get_subscription(request={"subscription": wanted.name}, timeout=_TIMEOUT)
        _require_own(deployment, found)
        if (found.topic, found.ack_deadline_seconds) != (wanted.topic, wanted.ack_deadline_seconds):
            subscriber.delete_subscription(request={"subscription": wanted.name}, timeout=_TIMEOUT)
            subscriber.create_subscription(request=wanted, timeout=_TIMEOUT)


def _require_own(deployment: Deployment, found: Topic | Subscription) -> None:
    claim = _claim(deployment, found)
    if claim is not None:
        raise claim.refusal()


def _claim(deployment: Deployment, found: Topic | Subscription) -> Claim | None:
    kind, name = found.name.split("/")[-2:]
    return by_labels(deployment, f"{kind.removesuffix('s')} {name}", found.labels)


def find_queues(clients: Clients, project: str, name: str, region: str = "") -> Queues:
    """Names of the topics and of the subscriptions that have the labels of deployment `name`, sorted.

    In whichever region it is if none is named; earlier releases have not labelled it.
    """

    def named(found: Iterable[Topic | Subscription]) -> list[str]:
        ours = (item for item in found if item.labels.get(LABEL) == name)
        return sorted(item.name for item in ours if not region or item.labels.get(REGION_LABEL, region) == region)

    return Queues(named(_topics(clients, project)), named(_subscriptions(clients, project)))


def claim_on_queues(clients: Clients, deployment: Deployment) -> Claim | None:
    """On topics and subscriptions that are another's: those of our names, and those of our label in other regions."""
    ours = re.compile(rf"{re.escape(deployment.stem)}-\d+-\d+")
    found: list[Topic | Subscription] = [*_topics(clients, deployment.project)]
    found += _subscriptions(clients, deployment.project)
    meant = (
        item
        for item in found
        if ours.fullmatch(item.name.rpartition("/")[2]) or item.labels.get(LABEL) == deployment.name
    )
    claims = [claim for item in meant if (claim := _claim(deployment, item)) is not None]
    # Those of another region count most, since nothing must be touched then.
    claims.sort(key=lambda claim: not claim.region)
    return claims[0].with_more(len(claims) - 1) if claims else None


def _topics(clients: Clients, project: str) -> Iterator[Topic]:
    request = {"project": f"projects/{project}", "page_size": _PAGE}
    yield from clients.publisher.list_topics(request=request, timeout=_TIMEOUT)


def _subscriptions(clients: Clients, project: str) -> Iterator[Subscription]:
    request = {"project": f"projects/{project}", "page_size": _PAGE}
    yield from clients.subscriber.list_subscriptions(request=request, timeout=_TIMEOUT)


def remove_queues(clients: Clients, topics: list[str], subscriptions: list[str]) -> None:
    """Remove what is still there."""
    publisher, subscriber = clients.publisher, clients.subscriber

    def remove(name: str) -> None:
        try:
            if "/topics/" in name:
                publisher.delete_topic(request={"topic": name}, timeout=_TIMEOUT)
            else:
                subscriber.delete_subscription(request={"subscription": name}, timeout=_TIMEOUT)
        except exceptions.NotFound:
            return

    _for_each(remove, [*subscriptions, *topics], lambda _: None)


_DELETES_IN_FLIGHT = 8


def find_bucket(client: storage.Client, deployment: Deployment) -> storage.Bucket | Claim | None:
    """The bucket; a claim if it is another's; None if there is none.

    Names of buckets are shared by the whole world and can be guessed: ours are those that our project lists.
    """
    for bucket in client.list_buckets(prefix=deployment.bucket, timeout=_TIMEOUT):
        if bucket.name == deployment.bucket:
            return _claim_on_bucket(bucket, deployment) or bucket
    if _is_taken(client, deployment.bucket):
        return Claim(f"bucket {deployment.bucket}", "belongs to another project", "take another --name")
    return None


def _is_taken(client: storage.Client, name: str) -> bool:
    """Of a bucket of somebody else the service does not say more than that it may not be seen."""
    try:
        return client.lookup_bucket(name, timeout=_TIMEOUT) is not None
    except exceptions.Forbidden as error:
        if is_disabled(error):
            raise
        return True


def _claim_on_bucket(bucket: storage.Bucket, deployment: Deployment) -> Claim | None:
    what, place = f"bucket {bucket.name}", bucket.location.lower()
    strange = by_labels(deployment, what, bucket.labels)
    if strange is not None or place == deployment.region:
        return strange
    # Earlier releases have not labelled the region, but have always made it there.
    if is_region(place) and REGION_LABEL not in bucket.labels:
        return elsewhere(deployment, what, place)
    return Claim(what, f"lies in {place}, not {deployment.region}", "remove it, or take another --name")


def make_bucket(client: storage.Client, deployment: Deployment) -> None:
    """Make the bucket, or bring it up to date.

    What runs left is deleted after some days; nobody outside the project can be let in. `ConfigError` for a bucket of
    that name which is another's, or was made for something else.
    """
    bucket = _own(client, deployment)
    if bucket is None:
        bucket = client.bucket(deployment.bucket)
        _describe(bucket, deployment)
        _create(client, bucket, deployment)
    else:
        _describe(bucket, deployment)
        bucket.patch(timeout=_TIMEOUT)


def _own(client: storage.Client, deployment: Deployment) -> storage.Bucket | None:
    found = find_bucket(client, deployment)
    if isinstance(found, Claim):
        raise found.refusal()
    return found


def _describe(bucket: storage.Bucket, deployment: Deployment) -> None:
    """What makes it ours and safe; other labels and rules stay."""
    bucket.labels = {**bucket.labels, **deployment.labels}
    of_runs = {"matchesPrefix": ["runs/"]}
    others = [rule for rule in bucket.lifecycle_rules if not of_runs.items() <= rule.get("condition", {}).items()]
    bucket.lifecycle_rules = others
    bucket.add_lifecycle_delete_rule(age=deployment.run_days, matches_prefix=["runs/"])
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = "enforced"
    # What was deleted is gone: by default it would be kept, and billed, for a week.
    bucket.soft_delete_policy.retention_duration_seconds = 0


def _create(client: storage.Client, bucket: storage.Bucket, deployment: Deployment) -> None:
    try:
        client.create_bucket(bucket, location=deployment.region, timeout=_TIMEOUT)
    except exceptions.Conflict:
        # Made meanwhile, perhaps by this very call, whose answer was lost.
        if _own(client, deployment) is None:
            raise


def remove_bucket(client: storage.Client, deployment: Deployment) -> int | None:
    """Remove the bucket with all objects, and return how many there were; None if there is none of ours."""
    bucket = find_bucket(client, deployment)
    if bucket is None or isinstance(bucket, Claim):
        return None
    blobs = list(client.list_blobs(bucket, fields="items(name),nextPageToken", timeout=_TIMEOUT))
    with ThreadPoolExecutor(_DELETES_IN_FLIGHT) as pool:
        parts = [blobs[first::_DELETES_IN_FLIGHT] for first in range(_DELETES_IN_FLIGHT)]
        list(pool.map(partial(bucket.delete_blobs, on_error=lambda _: None, timeout=_TIMEOUT), parts))
    try:
        bucket.delete(timeout=_TIMEOUT)
    except exceptions.NotFound:
        return None
    return len(blobs)
