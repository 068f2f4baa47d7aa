"""The end of a deploy: when its caller can call the function, and the function can do what workers do."""

from __future__ import annotations

from collections.abc import Callable

import requests

from backends.gcp.asking import TRIAL
from backends.gcp.deployment import Deployment
from backends.gcp.direct import go_direct
from backends.gcp.errors import one_line
from backends.gcp.trial import Lack
from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.decoding import from_json
from fsdcore.errors import AccessDeniedError, DeploymentError, WireError
from fsdcore.events import Observer

__all__ = ["await_working"]

# Google speaks of two minutes usually, seven or more at times.
_LONGEST_SECONDS = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 15.0
_ANSWER_SECONDS = 120.0
_TASK = "roles in force"
_LISTED = 3


def await_working(
    deployment: Deployment, token: Callable[[], str], is_caller: bool, observer: Observer, clock: Clock = SYSTEM_CLOCK
) -> list[str]:
    """Return once a trial finds nothing lacking; lines for the user, if there is something to say.

    `token` gives the identity that starts are made with, which only callers have; `DeploymentError` with what is
    lacking if that lasts for ten minutes.
    """
    deadline, pause = Deadline.after(_LONGEST_SECONDS, clock), _FIRST_PAUSE
    while lacks := _lacking(deployment, token):
        if not is_caller and lacks[0].on == _CALLER:
            return [f"not tried, since whoever deploys may not run ({lacks[0].reason})"]
        if deadline.passed():
            raise DeploymentError(f"after {_LONGEST_SECONDS / 60:.0f} minutes there is still lacking: {_listed(lacks)}")
        observer.progress(_TASK, 0, 1)
        clock.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    observer.progress(_TASK, 1, 1)
    return []


_CALLER = "the service account, for who deploys"


def _lacking(deployment: Deployment, token: Callable[[], str]) -> list[Lack]:
    try:
        headers = {"Authorization": f"Bearer {token()}", TRIAL: "1"}
    except AccessDeniedError as error:
        return [Lack("roles/iam.serviceAccountOpenIdTokenCreator", _CALLER, error.message)]
    function = f"function {deployment.stem}"
    try:
        with requests.Session() as session:
            go_direct(session, deployment.url)
            answer = session.post(deployment.url, b"", headers=headers, timeout=_ANSWER_SECONDS)
    except requests.RequestException as error:
        return [Lack("", function, one_line(error))]
    if answer.status_code == requests.codes.forbidden:
        return [Lack("roles/run.invoker", function, "HTTP 403")]
    if answer.status_code != requests.codes.ok:
        return [Lack("", function, f"HTTP {answer.status_code}: {' '.join(answer.text.split())[:200]}")]
    try:
        return from_json(answer.content, list[Lack], lambda reason: WireError(f"its answer is none: {reason}"))
    except WireError as error:
        return [Lack("", function, error.message)]


def _listed(lacks: list[Lack]) -> str:
    more = f", and {len(lacks) - _LISTED} more" if len(lacks) > _LISTED else ""
    return f"{', '.join(map(str, lacks[:_LISTED]))}{more}"
