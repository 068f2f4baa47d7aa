"""The end of a deploy: when its caller can call the function, and the function can do what workers do."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

from fsd_gcp.calls.asking import TRIAL, Answer, Lack, Trial, ask, is_denied, may_pass
from fsd_gcp.deployment import Deployment
from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.decoding import from_json
from fsdcore.errors import DeploymentError, FsdError, WireError
from fsdcore.record.observer import Observer, notice

# Google speaks of two minutes usually, seven or more at times.
_LONGEST_SECONDS = 600.0
# How long it is waited for one of whom nobody can tell whether a role was given: it may have been, a moment ago.
_UNKNOWN_SECONDS = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
_TOKEN_SECONDS, _ANSWER_SECONDS = 30.0, 120.0
# What the last look has left.
_LEAST_SECONDS = 5.0
_TASK = "roles in force"
_LISTED = 3
_REFUSALS = (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED)


class _Look(NamedTuple):
    """What is lacking, if anything; with `of_caller` it is who deploys that may not, so that nothing was tried."""

    lacks: list[Lack]
    of_caller: bool = False


def await_working(
    deployment: Deployment,
    token: Callable[[float], str],
    is_caller: bool,
    observer: Observer,
    clock: Clock = SYSTEM_CLOCK,
    *,
    may_be_caller: bool = False,
) -> list[str]:
    """Return once a trial finds nothing lacking; lines for the user, if there is something to say.

    `token` gives the identity that starts are made with, in no more than so many seconds. Who deploys and is no caller,
    for all that is known, may perhaps not run: that is waited for too, as long as for others if it `may_be_caller`, as
    somebody who is named or one of a group, and is no error. `DeploymentError` with what is lacking if that lasts for
    ten minutes; `CredentialsError`, and whatever else no time mends, at once.
    """
    end, pause, told = Deadline.after(_LONGEST_SECONDS, clock), _FIRST_PAUSE, ""
    unsure: Deadline | None = None
    while (look := _tried(deployment, token, end)).lacks:
        told, until = _tell(observer, look.lacks, told), end
        if look.of_caller and not is_caller:
            until = unsure = unsure or end.sooner(_LONGEST_SECONDS if may_be_caller else _UNKNOWN_SECONDS)
        left = until.remaining() - _LEAST_SECONDS
        if left <= 0:
            return _given_up(look, told, is_note=until is unsure)
        clock.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)
    observer.progress(_TASK, 1, 1)
    return []


def _given_up(look: _Look, told: str, is_note: bool) -> list[str]:
    if is_note:
        return [f"not tried, since whoever deploys may not run ({look.lacks[0].reason})"]
    raise DeploymentError(f"after {_LONGEST_SECONDS / 60:.0f} minutes there is still lacking: {told}")


def _tell(observer: Observer, lacks: list[Lack], told: str) -> str:
    """Show what is lacking now, unless it is what was `told` last."""
    observer.progress(_TASK, 0, 1)
    text = _listed(lacks)
    if text != told:
        notice(observer, f"waiting, since there is still lacking: {text}")
    return text


def _tried(deployment: Deployment, token: Callable[[float], str], end: Deadline) -> _Look:
    """The trial, part by part: a function of little time, or many places, tries some of them at a time."""
    first, places = 0, len(deployment.endpoints())
    while first < places:
        found = _part(deployment, token, end, first)
        if isinstance(found, _Look):
            return found
        if found.lacks or found.tried <= first:
            return _Look(found.lacks or [_nothing_tried(deployment)])
        first = found.tried
    return _Look([])


def _nothing_tried(deployment: Deployment) -> Lack:
    return Lack("", f"function {deployment.stem}", f"it did not come to try anything{_short_of_time(deployment)}")


def _short_of_time(deployment: Deployment) -> str:
    return f"; is its timeout_seconds of {deployment.timeout_seconds} enough?"


def _part(deployment: Deployment, token: Callable[[float], str], end: Deadline, first: int) -> Trial | _Look:
    """What the function finds at some places from the first, or why it does not say."""
    try:
        headers = {"Authorization": f"Bearer {token(end.sooner(_TOKEN_SECONDS).remaining())}", TRIAL: str(first)}
    except FsdError as error:
        if not (may_pass(error) or is_denied(error)):
            raise
        return _Look([Lack("", "the identity to call the function with", error.message)], is_denied(error))
    try:
        answer = ask(deployment.url, headers, max(0.1, end.sooner(_ANSWER_SECONDS).remaining()))
    except FsdError as error:
        if not may_pass(error):
            raise
        return _Look([Lack("", f"function {deployment.stem}", error.message)])
    return _read(deployment, answer)


def _read(deployment: Deployment, answer: Answer) -> Trial | _Look:
    function = f"function {deployment.stem}"
    if not answer.own:
        role = "roles/run.invoker" if answer.status == HTTPStatus.FORBIDDEN else ""
        late = _short_of_time(deployment) if answer.status == HTTPStatus.GATEWAY_TIMEOUT else ""
        return _Look([Lack(role, function, f"{answer}{late}")], answer.status in _REFUSALS)
    try:
        return from_json(answer.content, Trial, lambda reason: WireError(f"its answer is none: {reason}"))
    except WireError as error:
        return _Look([Lack("", function, error.message)])


def _listed(lacks: list[Lack]) -> str:
    """What is lacking, and what the service said of the first of it."""
    more = f", and {len(lacks) - _LISTED} more" if len(lacks) > _LISTED else ""
    said = f" ({lacks[0].reason})" if lacks[0].role and lacks[0].reason else ""
    return f"{', '.join(map(str, lacks[:_LISTED]))}{more}{said}"
