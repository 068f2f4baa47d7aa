"""Who may do what: the service account of a deployment, and the roles that it and the callers have.

Every role of workers and callers is given on one resource of the deployment, none on the project, so all of them go
with the resources. What builds the function has an account of its own, with roles on the project: see `builder`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from google.api_core import exceptions
from google.auth.transport.requests import Request
from google.oauth2.credentials import Credentials as UserCredentials

from backends.gcp.deployment import Deployment
from backends.gcp.errors import sound_answers
from backends.gcp.settings import is_account
from fsdcore.clock import SYSTEM_CLOCK, Deadline

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

    from backends.gcp.deploy.rest import Rest

__all__ = [
    "GRANTS",
    "Grant",
    "Policy",
    "account_url",
    "add",
    "change",
    "find_account",
    "give",
    "holders",
    "identity",
    "lacking",
    "make_account",
    "remove_account",
]

_IN_FLIGHT = 16
# An account that was just made is not known everywhere at once; Google speaks of a minute and more.
_SETTLING_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
# Older versions of a policy hide what is given on a condition, which would be lost in a write.
_WITH_CONDITIONS: dict[str, Any] = {"options.requestedPolicyVersion": 3}
_TOKEN_INFO = "https://oauth2.googleapis.com/tokeninfo"
_OF_THIS_MACHINE = "default"


@dataclass(frozen=True)
class Grant:
    """A role on a kind of resource, for the workers' service account, for callers (who start runs), or for both."""

    role: str
    on: str
    workers: bool
    callers: bool
    why: str


GRANTS = (
    Grant("roles/storage.objectUser", "bucket", True, True, "read, write, list and delete plans, inputs and outputs"),
    Grant("roles/pubsub.publisher", "topic", True, True, "send to the other workers"),
    Grant("roles/pubsub.subscriber", "subscription", True, True, "receive; of callers, to measure (fsd calibrate)"),
    Grant("roles/iam.serviceAccountOpenIdTokenCreator", "account", False, True, "borrow the identity that may invoke"),
    Grant("roles/cloudfunctions.viewer", "function", False, True, "look up the deployment"),
    # The function itself is a service of Cloud Run. A person borrows the workers' identity for this.
    Grant("roles/run.invoker", "service", True, True, "start workers; of callers, for service accounts alone"),
)
# Before the function can be made: it needs none of them, but its workers do.
_EARLY = ("bucket", "topic", "subscription", "account")


# Service accounts


def account_url(project: str, email: str) -> str:
    return f"https://iam.googleapis.com/v1/projects/{project}/serviceAccounts/{email}"


def find_account(rest: Rest, deployment: Deployment, email: str = "") -> bool:
    """Whether there is that service account, or the workers' if none is named."""
    try:
        rest.get(account_url(deployment.project, email or deployment.service_account))
    except exceptions.NotFound:
        return False
    return True


def make_account(rest: Rest, deployment: Deployment, email: str = "", what: str = "workers") -> None:
    """Make a service account unless it is there. It can have no labels, so its description tells what it is of."""
    email = email or deployment.service_account
    if find_account(rest, deployment, email):
        return
    described = {"displayName": f"fsd {deployment.name}", "description": f"{what} of fsd deployment {deployment.name}"}
    try:
        rest.post(
            f"https://iam.googleapis.com/v1/projects/{deployment.project}/serviceAccounts",
            {"accountId": email.partition("@")[0], "serviceAccount": described},
        )
    except exceptions.Conflict:
        # Made meanwhile, perhaps by this very call, whose answer was lost.
        return


def remove_account(rest: Rest, deployment: Deployment, email: str = "") -> bool:
    """Remove a service account; False if there is none."""
    try:
        rest.delete(account_url(deployment.project, email or deployment.service_account))
    except exceptions.NotFound:
        return False
    return True


# Callers


class _Told(msgspec.Struct):
    email: str = ""


def identity(credentials: Credentials, rest: Rest) -> str:
    """Whose credentials these are, as a member of policies (``user:...``); empty if they do not say."""
    if isinstance(credentials, UserCredentials):
        return _member(_address(credentials, rest))
    if getattr(credentials, "service_account_email", "") == _OF_THIS_MACHINE:
        # Which that is, a refresh tells.
        credentials.refresh(Request())
    return _member(getattr(credentials, "service_account_email", ""))


def _member(email: str) -> str:
    """A machine may be of a person, too, as Cloud Shell's is."""
    if not email:
        return ""
    return f"serviceAccount:{email}" if is_account(email) else f"user:{email}"


def _address(credentials: UserCredentials, rest: Rest) -> str:
    """Asked with a token for all that the person agreed to: one for Google Cloud alone would not tell the address."""
    parts = ("refresh_token", "token_uri", "client_id", "client_secret")
    whole = UserCredentials(None, **{part: getattr(credentials, part) for part in parts})
    with sound_answers():
        whole.refresh(Request())
    return str(rest.ask_openly(_TOKEN_INFO, like=_Told, access_token=whole.token).get("email", ""))


# Policies


class _Binding(msgspec.Struct):
    role: str
    members: list[str] = msgspec.field(default_factory=list)
    condition: dict[str, Any] | None = None


class _Found(msgspec.Struct):
    bindings: list[_Binding] = msgspec.field(default_factory=list)


class Policy:
    """The policy of one resource; each service has ways of its own to read and write one."""

    def __init__(self, rest: Rest, url: str, read_by_post: bool = False) -> None:
        self._rest, self._url, self._read_by_post = rest, url, read_by_post

    def read(self) -> dict[str, Any]:
        if self._read_by_post:
            return self._rest.post(f"{self._url}:getIamPolicy", like=_Found, **_WITH_CONDITIONS)
        return self._rest.get(f"{self._url}:getIamPolicy", like=_Found, **_WITH_CONDITIONS)

    def write(self, policy: dict[str, Any]) -> None:
        self._rest.post(f"{self._url}:setIamPolicy", {"policy": policy})


class _BucketPolicy(Policy):
    def read(self) -> dict[str, Any]:
        return self._rest.get(f"{self._url}/iam", like=_Found, optionsRequestedPolicyVersion=3)

    def write(self, policy: dict[str, Any]) -> None:
        self._rest.put(f"{self._url}/iam", policy)


def _policies(rest: Rest, deployment: Deployment, on: str) -> Iterator[Policy]:
    """Those of the resources of a kind."""
    if on == "bucket":
        yield _BucketPolicy(rest, f"https://storage.googleapis.com/storage/v1/b/{deployment.bucket}")
    elif on == "account":
        yield Policy(rest, account_url(deployment.project, deployment.service_account), read_by_post=True)
    elif on == "function":
        yield Policy(rest, f"https://cloudfunctions.googleapis.com/v2/{deployment.function}")
    elif on == "service":
        yield Policy(rest, f"https://run.googleapis.com/v2/{deployment.parent}/services/{deployment.stem}")
    else:
        name = deployment.topic if on == "topic" else deployment.subscription
        for endpoint in deployment.endpoints():
            yield Policy(rest, f"https://pubsub.googleapis.com/v1/{name(*endpoint)}")


def give(
    rest: Rest,
    deployment: Deployment,
    callers: Sequence[str],
    function: bool,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Give the roles on the `function` and its service, or on all else; what others were given is kept.

    `told` hears how many policies of how many are as they should be.
    """
    changes = [
        (policy, grant.role, _members(grant, deployment, callers))
        for grant in GRANTS
        if (grant.on in _EARLY) is not function
        for policy in _policies(rest, deployment, grant.on)
    ]
    wanted = [one for one in changes if one[2]]

    def add_to(one: tuple[Policy, str, list[str]]) -> None:
        policy, role, members = one
        change(policy, lambda found: add(found, role, members), deployment.service_account)

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        for done, _ in enumerate(pool.map(add_to, wanted), start=1):
            told(done, len(wanted))


def _members(grant: Grant, deployment: Deployment, callers: Sequence[str]) -> list[str]:
    workers = [f"serviceAccount:{deployment.service_account}"] if grant.workers else []
    if grant.on == "service":
        callers = [member for member in callers if member.startswith("serviceAccount:")]
    return [*workers, *(callers if grant.callers else ())]


def change(policy: Policy, alter: Callable[[dict[str, Any]], bool], own: str) -> None:
    """Read a policy, `alter` it and, if that says so, write it.

    Again if someone else wrote it meanwhile, or the account `own`, which was just made, is not known yet.
    """
    deadline, pause = Deadline.after(_SETTLING_SECONDS), _FIRST_PAUSE
    while True:
        try:
            found = policy.read()
            if alter(found):
                policy.write(found)
            return
        except exceptions.GoogleAPICallError as error:
            if deadline.passed() or not _passes(error, own):
                raise
        SYSTEM_CLOCK.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _passes(error: exceptions.GoogleAPICallError, own: str) -> bool:
    """Whether it is a rival's write, or `own` is not known yet: as a member, or as what the policy is of.

    Of another account that "does not exist", whoever named it has made a mistake.
    """
    if isinstance(error, exceptions.Conflict | exceptions.PreconditionFailed | exceptions.NotFound):
        return True
    if isinstance(error, exceptions.Forbidden):
        return "may not exist" in str(error) and own in str(error)
    return isinstance(error, exceptions.BadRequest) and "does not exist" in str(error) and own in str(error)


def add(policy: dict[str, Any], role: str, members: Iterable[str]) -> bool:
    """Add to a policy; False if all have the role already, on no condition."""
    held = holders(policy, role)
    missing = [member for member in members if member not in held]
    if missing:
        policy.setdefault("bindings", []).append({"role": role, "members": missing})
    return bool(missing)


def holders(policy: dict[str, Any], role: str) -> set[str]:
    found = (item for item in policy.get("bindings", []) if item.get("role") == role and not item.get("condition"))
    return {member for item in found for member in item.get("members", [])}


def lacking(rest: Rest, deployment: Deployment) -> list[str]:
    """The roles that the service account should have and has not, each with what it is missing on."""
    member = f"serviceAccount:{deployment.service_account}"
    wanted = [(grant, policy) for grant in GRANTS if grant.workers for policy in _policies(rest, deployment, grant.on)]
    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        has = pool.map(lambda item: _has(item[1], item[0].role, member), wanted)
        missing = Counter(grant for (grant, _), found in zip(wanted, has, strict=True) if not found)
    return [f"{grant.role} on {count} {grant.on}{'s' if count > 1 else ''}" for grant, count in missing.items()]


def _has(policy: Policy, role: str, member: str) -> bool:
    try:
        return member in holders(policy.read(), role)
    except exceptions.Forbidden:
        # Whoever may not look at a policy may still look at the rest of a deployment.
        return True
