"""What a worker does, tried once from inside the function: roles that were just given take minutes to be in force.

A deploy asks for it until nothing is lacking.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError

from fsd_gcp.calls.asking import Lack, Trial, ask
from fsd_gcp.calls.errors import one_line
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import AccessDeniedError, FsdError

if TYPE_CHECKING:
    from fsd_gcp.backend import GcpBackend
    from fsd_gcp.deployment import Deployment

_IN_FLIGHT = 16
_SECONDS = 30.0
# No worker takes it for a frame.
_WORD = b"fsd trial"
_DENIED = (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED)


def tried(backend: GcpBackend, first: int, seconds: float) -> Trial:
    """Send and receive at every rank's place from the one numbered `first`, as far as that goes in `seconds`.

    With the first place, an object is written, read and deleted, and the function called.
    """
    deployment, deadline = backend.deployment, Deadline.after(seconds, SYSTEM_CLOCK)
    places = deployment.endpoints()[first:]
    asked = [] if first else [_Asked(f"bucket {deployment.bucket}", _store), _Asked(_function(deployment), _start)]
    asked += [_Asked(_short(deployment.subscription(*place)), _queue_at(*place)) for place in places]
    pool = ThreadPoolExecutor(_IN_FLIGHT)
    for one in asked:
        one.future = pool.submit(one.found, backend, deadline)
    wait([one.future for one in asked], seconds)
    begun = [one for one in asked if not one.future.cancel()]
    pool.shutdown(wait=False)
    lacks = [lack for one in begun for lack in one.lacks(seconds)]
    return Trial(lacks, first + len(places) - (len(asked) - len(begun)))


class _Asked:
    """Something that is tried, by its name."""

    future: Future[list[Lack]]

    def __init__(self, on: str, look: Callable[[GcpBackend, Deadline], Iterator[Lack]]) -> None:
        self.on, self._look = on, look

    def found(self, backend: GcpBackend, deadline: Deadline) -> list[Lack]:
        return list(self._look(backend, deadline))

    def lacks(self, seconds: float) -> list[Lack]:
        return self.future.result() if self.future.done() else [Lack("", self.on, f"no answer within {seconds:.3g} s")]


def _function(deployment: Deployment) -> str:
    return f"function {deployment.stem}"


def _short(resource: str) -> str:
    """A name without the project."""
    return resource.split("/", 2)[2]


def _store(backend: GcpBackend, deadline: Deadline) -> Iterator[Lack]:
    del deadline
    key = f"runs/trial-{secrets.token_hex(8)}"
    try:
        backend.store.put(key, _WORD)
        backend.store.get(key)
        backend.store.list(key)
        backend.store.delete([key])
    except FsdError as error:
        yield Lack(_if_denied(error, "roles/storage.objectUser"), f"bucket {backend.deployment.bucket}", error.message)


def _queue_at(lane: int, rank: int) -> Callable[[GcpBackend, Deadline], Iterator[Lack]]:
    return lambda backend, deadline: _queue(backend, deadline, lane, rank)


def _queue(backend: GcpBackend, deadline: Deadline, lane: int, rank: int) -> Iterator[Lack]:
    topic, subscription = backend.deployment.topic(lane, rank), backend.deployment.subscription(lane, rank)
    try:
        request = {"topic": topic, "messages": [{"data": _WORD}]}
        backend.clients.publisher.publish(request=request, timeout=_left(deadline), retry=None)
    except (exceptions.GoogleAPIError, GoogleAuthError, FsdError) as error:
        yield _lack(error, "roles/pubsub.publisher", topic)
        return
    try:
        _receive(backend.clients.subscriber, subscription, deadline)
    except exceptions.DeadlineExceeded:
        # Others may have had it; that it might be asked for is what counts.
        return
    except (exceptions.GoogleAPIError, GoogleAuthError, FsdError) as error:
        yield _lack(error, "roles/pubsub.subscriber", subscription)


def _left(deadline: Deadline) -> float:
    return max(0.1, min(_SECONDS, deadline.remaining()))


def _receive(subscriber: Any, subscription: str, deadline: Deadline) -> None:
    """Take in what was sent here for a trial, and leave all else to the run that it is of."""
    request = {"subscription": subscription, "max_messages": 10}
    found = subscriber.pull(request=request, timeout=_left(deadline), retry=None).received_messages
    mine = [item.ack_id for item in found if item.message.data == _WORD]
    others = [item.ack_id for item in found if item.message.data != _WORD]
    if mine:
        subscriber.acknowledge(subscription=subscription, ack_ids=mine, timeout=_left(deadline))
    if others:
        subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=others, ack_deadline_seconds=0, timeout=_left(deadline)
        )


def _start(backend: GcpBackend, deadline: Deadline) -> Iterator[Lack]:
    """An empty request is refused by a worker, which is as good as taken; any other answer is not."""
    deployment = backend.deployment
    if not _starts_others(deployment):
        return
    try:
        headers = {"Authorization": f"Bearer {backend.tokens.token(_left(deadline))}"}
        answer = ask(deployment.url, headers, _left(deadline))
    except FsdError as error:
        yield Lack("", _function(deployment), error.message)
        return
    if not answer.own:
        yield Lack("roles/run.invoker" if answer.status in _DENIED else "", _function(deployment), str(answer))


def _starts_others(deployment: Deployment) -> bool:
    """With one instance there is none to call while this one is busy, and nobody to start."""
    return deployment.workers > 1


def _lack(error: Exception, role: str, resource: str) -> Lack:
    denied = isinstance(error, exceptions.Forbidden | exceptions.Unauthorized)
    return Lack(role if denied else "", _short(resource), one_line(error))


def _if_denied(error: FsdError, role: str) -> str:
    return role if isinstance(error, AccessDeniedError) else ""
