"""What a worker does, tried once from inside the function: roles that were just given take minutes to be in force.

A deploy asks for it until nothing is lacking.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import requests
from google.api_core import exceptions

from backends.gcp.errors import one_line, translated
from fsdcore.errors import AccessDeniedError, ComputeError, FsdError

if TYPE_CHECKING:
    from backends.gcp.backend import GcpBackend
    from backends.gcp.deployment import Deployment

__all__ = ["Lack", "tried"]

_IN_FLIGHT = 16
_SECONDS = 30.0
# No worker takes it for a frame.
_WORD = b"fsd trial"


class Lack(msgspec.Struct, frozen=True):
    """What a worker could not do: `role`, where that is what is missing, `on` what, and what the service said."""

    role: str
    on: str
    reason: str

    def __str__(self) -> str:
        return f"{self.role} on {self.on}" if self.role else f"{self.on}: {self.reason}"


def tried(backend: GcpBackend) -> list[Lack]:
    """Write, read and delete an object, send and receive at every rank's place, and call the function."""
    deployment = backend.deployment
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        queues = pool.map(lambda endpoint: list(_queue(backend, *endpoint)), deployment.endpoints())
        return [*_store(backend), *_start(backend), *(lack for lacks in queues for lack in lacks)]


def _store(backend: GcpBackend) -> Iterator[Lack]:
    key = f"runs/trial-{secrets.token_hex(8)}"
    try:
        backend.store.put(key, _WORD)
        backend.store.get(key)
        backend.store.list(key)
        backend.store.delete([key])
    except FsdError as error:
        yield Lack(_if_denied(error, "roles/storage.objectUser"), f"bucket {backend.deployment.bucket}", error.message)


def _queue(backend: GcpBackend, lane: int, rank: int) -> Iterator[Lack]:
    topic, subscription = backend.deployment.topic(lane, rank), backend.deployment.subscription(lane, rank)
    try:
        request = {"topic": topic, "messages": [{"data": _WORD}]}
        backend.clients.publisher.publish(request=request, timeout=_SECONDS, retry=None)
    except exceptions.GoogleAPIError as error:
        yield _lack(error, "roles/pubsub.publisher", topic)
        return
    try:
        _receive(backend.clients.subscriber, subscription)
    except exceptions.DeadlineExceeded:
        # Others may have had it; that it might be asked for is what counts.
        return
    except exceptions.GoogleAPIError as error:
        yield _lack(error, "roles/pubsub.subscriber", subscription)


def _receive(subscriber: Any, subscription: str) -> None:
    """Take in what was sent here for a trial, and leave all else to the run that it is of."""
    request = {"subscription": subscription, "max_messages": 10}
    found = subscriber.pull(request=request, timeout=_SECONDS, retry=None).received_messages
    mine = [item.ack_id for item in found if item.message.data == _WORD]
    others = [item.ack_id for item in found if item.message.data != _WORD]
    if mine:
        subscriber.acknowledge(subscription=subscription, ack_ids=mine, timeout=_SECONDS)
    if others:
        subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=others, ack_deadline_seconds=0, timeout=_SECONDS
        )


def _start(backend: GcpBackend) -> Iterator[Lack]:
    """An empty request is refused, which is as good as taken: by who may not call, it is refused otherwise."""
    deployment = backend.deployment
    if not _starts_others(deployment):
        return
    try:
        with translated("calling the function", ComputeError):
            headers = {"Authorization": f"Bearer {backend.tokens.token()}"}
            answer = requests.post(deployment.url, b"", headers=headers, timeout=_SECONDS)
    except FsdError as error:
        yield Lack("", f"function {deployment.stem}", error.message)
        return
    if answer.status_code in (requests.codes.forbidden, requests.codes.unauthorized):
        yield Lack("roles/run.invoker", f"function {deployment.stem}", f"HTTP {answer.status_code}")


def _starts_others(deployment: Deployment) -> bool:
    """With one instance there is none to call while this one is busy, and nobody to start."""
    return deployment.workers > 1


def _lack(error: exceptions.GoogleAPIError, role: str, resource: str) -> Lack:
    denied = isinstance(error, exceptions.Forbidden | exceptions.Unauthorized)
    return Lack(role if denied else "", resource.split("/", 2)[2], one_line(error))


def _if_denied(error: FsdError, role: str) -> str:
    return role if isinstance(error, AccessDeniedError) else ""
