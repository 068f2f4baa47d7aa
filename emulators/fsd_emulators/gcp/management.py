"""What a project is managed by: service accounts, policies, enabled services, quotas, and whose token one is.

It stands for the REST APIs of IAM, Service Usage, Cloud Quotas and the token info, and for the policies of Pub/Sub,
Cloud Storage, Cloud Run and Cloud Functions. Of the policies those are enforced that say who may invoke a function, and
borrow an identity to do so. Tests set what a project is like.
"""

from __future__ import annotations

import math
import re
import threading
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from fsd_emulators.gcp.errors import ApiError
from fsd_emulators.gcp.identities import email_of, token_for
from fsdcore.clock import SYSTEM_CLOCK

_API = ".googleapis.com"
# Which service a path is of: policies of functions and of Cloud Run's services are told apart by the path alone.
_APIS = (
    (re.compile(r"/storage/v1/"), "storage"),
    (re.compile(r"/v2/projects/[^/]+/locations/[^/]+/services/"), "run"),
    (re.compile(r"/v2/"), "cloudfunctions"),
    (re.compile(r"/v1/projects/[^/]+/(topics|subscriptions)/"), "pubsub"),
    (re.compile(r"/v1/projects/[^/]+/serviceAccounts"), "iam"),
    (re.compile(r"/v1/projects/[^/:]+:[gs]etIamPolicy"), "cloudresourcemanager"),
    (re.compile(r"/v1/projects/[^/]+/services:batchGet"), "serviceusage"),
    (re.compile(r"/v1/projects/[^/]+/locations/global/services/"), "cloudquotas"),
    (re.compile(r"/v1/projects/[^/]+/locations/[^/]+/repositories/"), "artifactregistry"),
)
_PROJECT = re.compile(r"/v[12]/projects/([^/]+)")
_POLICY = re.compile(r"/(?:v1|v2|storage/v1)/(.+?)(?::(get|set)IamPolicy|/iam)")
_ACCOUNTS = re.compile(r"/v1/projects/([^/]+)/serviceAccounts(?:/([^/:]+))?")
_ACCOUNT_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_QUOTA = re.compile(r"/v1/(projects/[^/]+/locations/global/services/run\.googleapis\.com/quotaInfos/(\w+))")
_BORROWING_PATH = re.compile(r"/v1/projects/-/serviceAccounts/([^/:]+):generateIdToken")
_INVOKER, _BORROWER = "roles/run.invoker", "roles/iam.serviceAccountOpenIdTokenCreator"
_BUILDING = ("roles/logging.logWriter", "roles/artifactregistry.writer", "roles/storage.objectViewer")
_IMAGES = re.compile(r"/v1/(projects/[^/]+/locations/[^/]+)/repositories/gcf-artifacts(?:/packages/([^/]+))?")
_MEMBER = re.compile(r"serviceAccount:(.+@(.+)\.iam\.gserviceaccount\.com)")


class Management:
    """All projects there are, but for those in `denied_projects`.

    - `disabled_apis`: services that are not enabled, such as ``pubsub.googleapis.com``, in every project
    - `forbidden_apis`: services that the caller may not use, such as ``cloudresourcemanager.googleapis.com``
    - `default_builds`: whether the default account of a project may build functions, as it may not in new projects
    - `denied_projects`: projects that there are not, or that the caller may not see
    - `quotas`: of Cloud Run, by id, in each region
    - `images`: what builds left in the repository of a region, by name; there from the first build on
    - `emails`: the e-mail address for each access token; empty for a token that does not tell it
    - `unknown_times`: how many more policies are refused that name a service account or are one's, as if it were not
      known
    - `unknown_seconds`: for so long after it was made an account is not known to policies, functions and builds
    - `act_as_refusals`: how many more functions are refused, as if the role to act as their accounts were not in force
    - `roles_late_until`: until that time, in seconds of the wall clock, no role is in force, those of builds neither
    - `missing_members`: members of policies that there are not, such as ``user:ann@exmple.com``
    - `rival_writes`: how many more policies are written by someone else between a read and a write
    """

    def __init__(self, is_there: Callable[[str], bool]) -> None:
        """`is_there` says whether there is a function."""
        self._is_there = is_there
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """As at first: all services enabled, quotas of a new project, no accounts, no policies."""
        self.disabled_apis: set[str] = set()
        self.denied_projects: set[str] = set()
        self.forbidden_apis: set[str] = set()
        self.default_builds = True
        self.quotas = {"CpuAllocPerProjectRegion": 200_000, "MemAllocPerProjectRegion": 400 << 30}
        self.images: dict[str, set[str]] = {}
        self.emails: dict[str, str] = {}
        self.unknown_times = self.rival_writes = self.act_as_refusals = 0
        self.roles_late_until = self.unknown_seconds = 0.0
        self.missing_members: set[str] = set()
        self.accounts: dict[str, dict[str, Any]] = {}
        self._made: dict[str, float] = {}
        self._policies: dict[str, dict[str, Any]] = {}

    def bindings(self, resource: str) -> dict[str, set[str]]:
        """The members of each role on a resource, such as ``projects/p/topics/t`` or ``b/bucket``."""
        found: dict[str, set[str]] = {}
        for item in self._policies.get(resource, {}).get("bindings", []):
            found.setdefault(item["role"], set()).update(item["members"])
        return found

    def forget(self, function: str) -> None:
        """Drop the policies of a function that is gone."""
        for resource in (function, _service_of(function)):
            self._policies.pop(resource, None)

    # Requests ------------------------------------------------------------------------------------------------

    def check(self, path: str) -> None:
        """`ApiError` if the service or the project of a request cannot be used."""
        project = _PROJECT.match(path)
        if project is not None and project[1] in self.denied_projects:
            resource = path.removeprefix("/v1/").removeprefix("/v2/").partition(":")[0]
            raise ApiError("PERMISSION_DENIED", f"Permission denied on resource '{resource}' (or it may not exist).")
        name = next((f"{api}{_API}" for pattern, api in _APIS if pattern.match(path)), "")
        if name in self.disabled_apis:
            raise _not_enabled(name, project[1] if project else "-")
        if name in self.forbidden_apis:
            raise ApiError("PERMISSION_DENIED", f"The caller does not have permission for {name}")

    def answer(
        self, method: str, path: str, query: dict[str, list[str]], content: dict[str, Any], token: str = ""
    ) -> Any:
        """The content of the answer to who shows `token`; None for a request that is for another part."""
        if path == "/tokeninfo":
            # The one that is shown wins.
            return self._token_info(token or query.get("access_token", [""])[0])
        if found := _BORROWING_PATH.fullmatch(path):
            return self._identity(found[1], content, token)
        if found := _POLICY.fullmatch(path):
            wanted = {"GET": "get", "PUT": "set", "POST": found[2]}.get(method)
            if wanted == "get" and content:
                raise ApiError("INVALID_ARGUMENT", "Invalid JSON payload received: the request body must be empty")
            policy = content if method == "PUT" else content.get("policy", {})
            return self._set_policy(found[1], policy) if wanted == "set" else self._get_policy(found[1])
        if found := _ACCOUNTS.fullmatch(path):
            return self._account(method, found[1], found[2], content)
        if found := _IMAGES.fullmatch(path):
            return self._images(method, found[1], unquote(found[2] or ""))
        if found := _QUOTA.fullmatch(path):
            return self._quota(found[1], found[2])
        return self._services(query) if path.endswith("/services:batchGet") else None

    def may_invoke(self, function: str, token: str) -> bool:
        """Whether a function takes the token: from somebody with the role, or from one who does not say who it is."""
        email = email_of(token)
        return not email or self._holds(_service_of(function), _INVOKER, email)

    def _holds(self, resource: str, role: str, email: str) -> bool:
        members = self.bindings(resource).get(role, set())
        kinds = {f"{kind}:{email}" for kind in ("user", "serviceAccount")}
        return not kinds.isdisjoint(members) and SYSTEM_CLOCK.wall() >= self.roles_late_until

    def _identity(self, account: str, content: dict[str, Any], token: str) -> dict[str, Any]:
        """A token of a service account for who may borrow its identity."""
        resource = next((found["name"] for email, found in self.accounts.items() if email == account), "")
        if not self._holds(resource, _BORROWER, email_of(token)):
            text = "Permission 'iam.serviceAccounts.getOpenIdToken' denied on resource (or it may not exist)."
            raise ApiError("PERMISSION_DENIED", text)
        return {"token": token_for(account, str(content.get("audience", "")))}

    def keep_image(self, function: str) -> None:
        """A build has ended well."""
        _, project, _, region, _, name = function.split("/")
        image = "__".join(part.replace("-", "--") for part in (project, region, name))
        self.images.setdefault(f"projects/{project}/locations/{region}", set()).add(image)

    def _images(self, method: str, place: str, image: str) -> dict[str, Any]:
        if place not in self.images or (image and image not in self.images[place]):
            raise ApiError("NOT_FOUND", "Requested entity was not found.")
        if method == "DELETE":
            self.images[place].discard(image)
            return {"name": f"{place}/operations/{uuid.uuid4()}", "done": True}
        return {"name": f"{place}/repositories/gcf-artifacts", "format": "DOCKER"}

    def _token_info(self, token: str) -> dict[str, Any]:
        if token not in self.emails:
            raise ApiError("INVALID_ARGUMENT", "Invalid Value")
        whose = {"email": self.emails[token], "email_verified": "true"} if self.emails[token] else {}
        return {**whose, "expires_in": "3599"}

    def _services(self, query: dict[str, list[str]]) -> dict[str, Any]:
        names = {name: name.rpartition("/")[2] for name in query.get("names", [])}
        states = {True: "DISABLED", False: "ENABLED"}
        found = [
            {"name": name, "config": {"name": api}, "state": states[api in self.disabled_apis]}
            for name, api in names.items()
        ]
        return {"services": found}

    def _quota(self, name: str, quota: str) -> dict[str, Any]:
        if quota not in self.quotas:
            raise ApiError("NOT_FOUND", f"Quota info {quota} was not found")
        regions = ["europe-west1", "europe-west4", "us-central1"]
        info = {"details": {"value": str(self.quotas[quota])}, "applicableLocations": regions}
        return {"name": name, "quotaId": quota, "dimensions": ["region"], "dimensionsInfos": [info]}

    # Service accounts ----------------------------------------------------------------------------------------

    def _account(self, method: str, project: str, email: str | None, content: dict[str, Any]) -> dict[str, Any]:
        if email is None and method == "POST":
            return self._create_account(project, content)
        if email not in self.accounts:
            raise _hidden("iam.serviceAccounts.get") if project == "-" else _no_account(email)
        return self._delete_account(email) if method == "DELETE" else self.accounts[email]

    def _delete_account(self, email: str) -> dict[str, Any]:
        """In policies it stays, as one that was deleted: a new account of its name has none of its roles."""
        account = self.accounts.pop(email)
        member, gone = f"serviceAccount:{email}", f"deleted:serviceAccount:{email}?uid={account['uniqueId']}"
        with self._lock:
            self._policies.pop(account["name"], None)
            for item in (item for policy in self._policies.values() for item in policy.get("bindings", [])):
                item["members"] = [gone if other == member else other for other in item["members"]]
        return {}

    def _create_account(self, project: str, content: dict[str, Any]) -> dict[str, Any]:
        name = str(content.get("accountId", ""))
        if not _ACCOUNT_ID.fullmatch(name):
            raise ApiError("INVALID_ARGUMENT", f"Invalid service account ID {name!r}: it has 6 to 30 characters")
        email = f"{name}@{project}.iam.gserviceaccount.com"
        if email in self.accounts:
            raise ApiError("ALREADY_EXISTS", f"Service account {name} already exists within project {project}.")
        made = {
            "name": f"projects/{project}/serviceAccounts/{email}",
            "email": email,
            "uniqueId": str(uuid.uuid4().int),
        }
        self.accounts[email] = {**content.get("serviceAccount", {}), **made}
        self._made[email] = SYSTEM_CLOCK.now()
        return self.accounts[email]

    # Policies ------------------------------------------------------------------------------------------------

    def _get_policy(self, resource: str) -> dict[str, Any]:
        self._check_resource(resource)
        account = _ACCOUNTS.fullmatch(f"/v1/{resource}")
        if account and not self.knows(account[2]):
            raise _hidden("iam.serviceAccounts.getIamPolicy")
        with self._lock:
            return self._policies.setdefault(resource, {"version": 1, "etag": uuid.uuid4().hex})

    def _set_policy(self, resource: str, policy: dict[str, Any]) -> dict[str, Any]:
        self._check_resource(resource)
        members = [member for item in policy.get("bindings", []) for member in item.get("members", [])]
        self._check_members(members)
        with self._lock:
            if self.rival_writes:
                self.rival_writes -= 1
                self._policies[resource] = {**self._policies.get(resource, {}), "etag": uuid.uuid4().hex}
            found = self._policies.get(resource, {})
            # A policy without an etag is written over whatever there is.
            if policy.get("etag") not in (None, found.get("etag")):
                raise ApiError(
                    "ABORTED", "There were concurrent policy changes. Please retry the whole read-modify-write"
                )
            self._policies[resource] = {**policy, "etag": uuid.uuid4().hex}
            return self._policies[resource]

    def may_build(self, project: str, account: str) -> str:
        """Why a build by an account, or by the default one if none is named, fails; empty if it does not."""
        if not account:
            return "" if self.default_builds else "The service account running this build does not have permission"
        email = account.rpartition("/")[2]
        if not self.knows(email):
            return f"The service account {email} does not exist"
        if SYSTEM_CLOCK.wall() < self.roles_late_until:
            return f"The service account {email} does not have {_BUILDING[0]}"
        held = self.bindings(f"projects/{project}")
        missing = [role for role in _BUILDING if f"serviceAccount:{email}" not in held.get(role, set())]
        return f"The service account {email} does not have {missing[0]}" if missing else ""

    def knows(self, email: str) -> bool:
        """Whether an account is known by now; one that is not though it was made takes one of `unknown_times`."""
        if email in self.accounts and self.unknown_times:
            self.unknown_times -= 1
            return False
        age = SYSTEM_CLOCK.now() - self._made.get(email, -math.inf)
        return email in self.accounts and age >= self.unknown_seconds

    def check_acting(self, *emails: str) -> None:
        """`ApiError` if a function cannot be made that acts as these accounts."""
        for email in filter(None, emails):
            if not self.knows(email):
                raise ApiError("INVALID_ARGUMENT", f"Service account {email} does not exist.")
        if self.act_as_refusals and emails:
            self.act_as_refusals -= 1
            raise _hidden("iam.serviceaccounts.actAs", f"service account {emails[-1]}")

    def _check_resource(self, resource: str) -> None:
        """Topics, subscriptions and buckets are known to other servers only: those are taken as they come."""
        account = _ACCOUNTS.fullmatch(f"/v1/{resource}")
        missing = account is not None and account[2] not in self.accounts
        if "/services/" in resource:
            missing = not self._is_there(_function_of(resource))
        if "/functions/" in resource:
            missing = not self._is_there(resource)
        if missing:
            raise ApiError("NOT_FOUND", f"Resource '{resource}' was not found")

    def _check_members(self, members: list[str]) -> None:
        for email in (found[1] for found in map(_MEMBER.fullmatch, members) if found):
            if not self.knows(email):
                raise ApiError("INVALID_ARGUMENT", f"Service account {email} does not exist.")
        for member in self.missing_members.intersection(members):
            kind, _, email = member.partition(":")
            raise ApiError("INVALID_ARGUMENT", f"{kind.capitalize()} {email} does not exist.")


def _service_of(function: str) -> str:
    return function.replace("/functions/", "/services/")


def _function_of(service: str) -> str:
    return service.replace("/services/", "/functions/")


def _hidden(permission: str, what: str = "resource") -> ApiError:
    """What is said to who may not see whether there is something."""
    return ApiError("PERMISSION_DENIED", f"Permission '{permission}' denied on {what} (or it may not exist).")


def _no_account(email: str | None) -> ApiError:
    return ApiError("NOT_FOUND", f"Unknown service account: {email}")


def _not_enabled(api: str, project: str) -> ApiError:
    page = f"https://console.developers.google.com/apis/api/{api}/overview?project={project}"
    text = f"API {api} has not been used in project {project} before or it is disabled. Enable it by visiting {page}"
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "googleapis.com"}
    return ApiError(
        "PERMISSION_DENIED",
        f"{text} then retry.",
        ({**info, "reason": "SERVICE_DISABLED", "metadata": {"service": api, "consumer": f"projects/{project}"}},),
    )
