"""Who may do what: the service account of a deployment, and the roles that it and the callers have.

Every role of workers and callers is given on one resource of the deployment, none on the project, so all of them go
with the resources. What builds the function has an account of its own, with roles on the project: see `builder`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import requests
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2.credentials import Credentials as UserCredentials

from fsd_gcp.calls.errors import is_disabled, sound_answers
from fsd_gcp.deploy.claims import WORKERS, Claim, by_description, description
from fsd_gcp.deploy.settling import Settling, is_of_new_account
from fsd_gcp.deployment import Deployment
from fsd_gcp.settings import GcpSettings, is_account

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

    from fsd_gcp.calls.clients import Clients
    from fsd_gcp.calls.rest import Rest

_IN_FLIGHT = 16
# Older versions of a policy hide what is given on a condition, which would be lost in a write.
_WITH_CONDITIONS: dict[str, Any] = {"options.requestedPolicyVersion": 3}
_TOKEN_INFO = "https://oauth2.googleapis.com/tokeninfo"
_OF_THIS_MACHINE = "default"
# The address of an account that somebody made tells its project; one of a domain's has a colon in its id.
_MADE = re.compile(r"[^@]+@([a-z0-9-]+)(?:\.(.+))?\.iam\.gserviceaccount\.com")


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
    Grant("roles/run.invoker", "service", True, True, "start workers; of callers, for all but single persons"),
)
# Before the function can be made: it needs none of them, but its workers do.
_EARLY = ("bucket", "topic", "subscription", "account")


# Service accounts


def account_url(project: str, email: str) -> str:
    """Where IAM's API keeps a service account."""
    return f"https://iam.googleapis.com/v1/projects/{project}/serviceAccounts/{email}"


def find_account(rest: Rest, deployment: Deployment, email: str = "") -> bool:
    """Whether there is that service account, or the workers' if none is named."""
    return _account(rest, deployment, email or deployment.service_account) is not None


def _account(rest: Rest, deployment: Deployment, email: str) -> dict[str, Any] | None:
    try:
        return rest.get(account_url(deployment.project, email))
    except exceptions.NotFound:
        return None


def claim_on_account(
    rest: Rest, deployment: Deployment, email: str = "", task: str = WORKERS
) -> Claim | dict[str, Any] | None:
    """The service account for `task`, or the workers' if none is named; a claim if it is another's; None if none is."""
    email = email or deployment.service_account
    found = _account(rest, deployment, email)
    if found is None:
        return None
    return by_description(deployment, f"service account {email}", str(found.get("description", "")), task) or found


def is_gone(rest: Rest, email: str) -> bool:
    """Whether there certainly is no such service account: of other projects that may not be seen."""
    found = _MADE.fullmatch(email)
    if found is None:
        return False
    name, domain = found.groups()
    try:
        rest.get(account_url(f"{domain}:{name}" if domain else name, email))
    except exceptions.NotFound:
        return True
    except exceptions.Forbidden as error:
        if is_disabled(error):
            raise
    return False


def make_account(rest: Rest, deployment: Deployment, email: str = "", task: str = WORKERS) -> bool:
    """Make a service account; False if it is there. `ConfigError` if one of its name is another's.

    It can have no labels, so its description tells what it is of.
    """
    email = email or deployment.service_account
    if _has_own(rest, deployment, email, task):
        return False
    described = {"displayName": f"fsd {deployment.name}", "description": description(deployment, task)}
    try:
        rest.post(
            f"https://iam.googleapis.com/v1/projects/{deployment.project}/serviceAccounts",
            {"accountId": email.partition("@")[0], "serviceAccount": described},
        )
    except exceptions.Conflict:
        # Made meanwhile, perhaps by this very call, whose answer was lost.
        return not _has_own(rest, deployment, email, task)
    return True


def _has_own(rest: Rest, deployment: Deployment, email: str, task: str) -> bool:
    found = claim_on_account(rest, deployment, email, task)
    if isinstance(found, Claim):
        raise found.refusal()
    return found is not None


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


def whose(clients: Clients, settings: GcpSettings) -> str:
    """Whose the credentials are, where that can be told, and the project."""
    if not settings.emulated:
        with suppress(exceptions.GoogleAPIError, GoogleAuthError, requests.RequestException):
            if who := identity(clients.credentials, clients.rest):
                return f"{who}, project {clients.project}"
    return clients.described()


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
    """The policy of one resource; each service has ways of its own to read and write one.

    `of_account` says that the resource is a service account of the deployment.
    """

    def __init__(self, rest: Rest, url: str, read_by_post: bool = False, of_account: bool = False) -> None:
        self._rest, self._url, self._read_by_post = rest, url, read_by_post
        self.of_account = of_account

    def read(self) -> dict[str, Any]:
        """By `getIamPolicy`, which some services take as GET and others as POST; conditions are included."""
        if self._read_by_post:
            return self._rest.post(f"{self._url}:getIamPolicy", like=_Found, **_WITH_CONDITIONS)
        return self._rest.get(f"{self._url}:getIamPolicy", like=_Found, **_WITH_CONDITIONS)

    def write(self, policy: dict[str, Any]) -> None:
        """By `setIamPolicy`. The policy holds the etag of when it was read, so a change in between is a conflict."""
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
        url = account_url(deployment.project, deployment.service_account)
        yield Policy(rest, url, read_by_post=True, of_account=True)
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
    settling: Settling | None = None,
) -> None:
    """Give the roles on the `function` and its service, or on all else; what others were given is kept.

    `told` hears how many policies of how many are as they should be. The first that is refused ends it.
    """
    settling = settling or Settling(deployment.service_account)
    changes = [
        (policy, grant.role, _members(grant, deployment, callers))
        for grant in GRANTS
        if (grant.on in _EARLY) is not function
        for policy in _policies(rest, deployment, grant.on)
    ]
    wanted = [one for one in changes if one[2]]

    def add_to(one: tuple[Policy, str, list[str]]) -> None:
        policy, role, members = one
        change(policy, lambda found: add(found, role, members), settling)

    with ThreadPoolExecutor(_IN_FLIGHT) as pool, _all_or_none(pool, settling):
        under_way = [pool.submit(add_to, one) for one in wanted]
        for done, one in enumerate(as_completed(under_way), start=1):
            one.result()
            told(done, len(wanted))


@contextmanager
def _all_or_none(pool: ThreadPoolExecutor, settling: Settling) -> Iterator[None]:
    """Where the block ends by an error, what is under way in the pool need not be waited for."""
    done = False
    try:
        yield
        done = True
    finally:
        if not done:
            settling.stop()
            pool.shutdown(wait=False, cancel_futures=True)


def _members(grant: Grant, deployment: Deployment, callers: Sequence[str]) -> list[str]:
    workers = [f"serviceAccount:{deployment.service_account}"] if grant.workers else []
    if grant.on == "service":
        # A person's token is none that a function takes. Of all others some may be service accounts.
        callers = [member for member in callers if not member.startswith("user:")]
    return [*workers, *(callers if grant.callers else ())]


def change(policy: Policy, alter: Callable[[dict[str, Any]], bool], settling: Settling) -> bool:
    """Read a policy, `alter` it and, if that says so, write it; whether it was written.

    Again if someone else wrote it meanwhile, or what was just made is not known yet.
    """

    def once() -> bool:
        found = policy.read()
        altered = alter(found)
        if altered:
            policy.write(found)
        return altered

    def passes(error: exceptions.GoogleAPICallError, new: bool) -> bool:
        if isinstance(error, exceptions.Conflict | exceptions.PreconditionFailed | exceptions.NotFound):
            return True
        return settling.is_unknown(error, new) or (policy.of_account and is_of_new_account(error, new))

    return settling.repeat(once, passes)


def add(policy: dict[str, Any], role: str, members: Iterable[str]) -> bool:
    """Add to a policy; False if all have the role already, on no condition."""
    held = holders(policy, role)
    missing = [member for member in members if member not in held]
    if missing:
        policy.setdefault("bindings", []).append({"role": role, "members": missing})
    return bool(missing)


def holders(policy: dict[str, Any], role: str) -> set[str]:
    """The members who have `role` without a condition; a conditional binding may not apply."""
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
    except exceptions.Forbidden as error:
        if is_disabled(error):
            raise
        # Whoever may not look at a policy may still look at the rest of a deployment.
        return True
