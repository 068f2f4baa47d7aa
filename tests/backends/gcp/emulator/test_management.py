"""What a project is managed by, as the services answer over sockets."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from fsd_emulators.gcp.functions import FunctionsServer
from fsdcore.clock import SYSTEM_CLOCK

TOPIC = "v1/projects/p/topics/t"
ACCOUNTS = "v1/projects/p/serviceAccounts"
EMAIL = "fsd-demo@p.iam.gserviceaccount.com"


def ask(functions: FunctionsServer, method: str, path: str, content: Any = None, **query: str) -> tuple[int, Any]:
    with requests.request(method, f"{functions.url}/{path}", json=content, params=query, timeout=10) as answer:
        return answer.status_code, answer.json()


def bound(*members: str) -> dict[str, Any]:
    return {"bindings": [{"role": "roles/pubsub.publisher", "members": list(members)}]}


def test_a_policy_read_before_another_wrote_is_refused(functions: FunctionsServer) -> None:
    _, first = ask(functions, "GET", f"{TOPIC}:getIamPolicy")
    mine = {"policy": {**first, **bound("user:a@example.com")}}
    assert ask(functions, "POST", f"{TOPIC}:setIamPolicy", mine)[0] == 200
    status, answer = ask(functions, "POST", f"{TOPIC}:setIamPolicy", mine)
    assert (status, answer["error"]["status"]) == (409, "ABORTED")
    assert functions.management.bindings("projects/p/topics/t") == {"roles/pubsub.publisher": {"user:a@example.com"}}


def test_a_policy_names_only_accounts_that_there_are(functions: FunctionsServer) -> None:
    policy = {"policy": bound(f"serviceAccount:{EMAIL}")}
    status, answer = ask(functions, "POST", f"{TOPIC}:setIamPolicy", policy)
    assert (status, answer["error"]["message"]) == (400, f"Service account {EMAIL} does not exist.")
    assert ask(functions, "POST", ACCOUNTS, {"accountId": "fsd-demo"})[0] == 200
    assert ask(functions, "POST", f"{TOPIC}:setIamPolicy", policy)[0] == 200


def test_a_policy_names_nobody_whom_there_is_not(functions: FunctionsServer) -> None:
    functions.management.missing_members.add("user:ann@exmple.com")
    status, answer = ask(functions, "POST", f"{TOPIC}:setIamPolicy", {"policy": bound("user:ann@exmple.com")})
    assert (status, answer["error"]["message"]) == (400, "User ann@exmple.com does not exist.")


def test_an_account_is_not_known_at_once(functions: FunctionsServer) -> None:
    management, policy = functions.management, {"policy": bound(f"serviceAccount:{EMAIL}")}
    management.unknown_seconds = 3_600.0
    ask(functions, "POST", ACCOUNTS, {"accountId": "fsd-demo"})
    # It can be looked at, and no more.
    assert ask(functions, "GET", f"{ACCOUNTS}/{EMAIL}")[0] == 200
    assert ask(functions, "POST", f"{TOPIC}:setIamPolicy", policy)[0] == 400
    status, answer = ask(functions, "POST", f"{ACCOUNTS}/{EMAIL}:getIamPolicy")
    assert (status, "may not exist" in answer["error"]["message"]) == (403, True)
    assert management.may_build("p", EMAIL) == f"The service account {EMAIL} does not exist"
    management.unknown_seconds = 0.0
    assert ask(functions, "POST", f"{TOPIC}:setIamPolicy", policy)[0] == 200
    assert ask(functions, "POST", f"{ACCOUNTS}/{EMAIL}:getIamPolicy")[0] == 200


def test_the_roles_of_a_build_come_late_too(functions: FunctionsServer) -> None:
    management = functions.management
    ask(functions, "POST", ACCOUNTS, {"accountId": "fsd-demo"})
    roles = ("roles/logging.logWriter", "roles/artifactregistry.writer", "roles/storage.objectViewer")
    policy = {"bindings": [{"role": role, "members": [f"serviceAccount:{EMAIL}"]} for role in roles]}
    ask(functions, "POST", "v1/projects/p:setIamPolicy", {"policy": policy})
    assert management.may_build("p", EMAIL) == ""
    management.roles_late_until = SYSTEM_CLOCK.wall() + 3_600.0
    assert management.may_build("p", EMAIL) == f"The service account {EMAIL} does not have {roles[0]}"


def test_without_its_project_an_account_that_there_is_not_may_only_not_be_seen(functions: FunctionsServer) -> None:
    status, answer = ask(functions, "GET", f"v1/projects/-/serviceAccounts/{EMAIL}")
    assert (status, "may not exist" in answer["error"]["message"]) == (403, True)


def test_an_account_goes_with_its_policy(functions: FunctionsServer) -> None:
    made = {"accountId": "fsd-demo", "serviceAccount": {"displayName": "d", "description": "e"}}
    status, account = ask(functions, "POST", ACCOUNTS, made)
    assert (status, account["email"], account["description"]) == (200, EMAIL, "e")
    assert ask(functions, "POST", ACCOUNTS, made)[0] == 409
    policy = {"policy": bound("user:a@example.com")}
    assert ask(functions, "POST", f"{ACCOUNTS}/{EMAIL}:setIamPolicy", policy)[0] == 200
    assert ask(functions, "DELETE", f"{ACCOUNTS}/{EMAIL}") == (200, {})
    assert ask(functions, "GET", f"{ACCOUNTS}/{EMAIL}")[0] == 404
    assert functions.management.bindings(f"projects/p/serviceAccounts/{EMAIL}") == {}


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", ACCOUNTS, {"accountId": "short"}, 400),
        ("POST", ACCOUNTS, {"accountId": "much-too-long-for-the-name-of-an-account"}, 400),
        ("POST", f"{ACCOUNTS}/{EMAIL}:getIamPolicy", None, 404),
        ("GET", "v2/projects/p/locations/r/services/none:getIamPolicy", None, 404),
        ("GET", "v2/projects/p/locations/r/functions/none:getIamPolicy", None, 404),
        ("GET", "v1/projects/p/locations/global/services/run.googleapis.com/quotaInfos/None", None, 404),
        ("GET", "tokeninfo", None, 400),
    ],
)
def test_what_there_is_not_is_refused(
    functions: FunctionsServer, method: str, path: str, content: Any, status: int
) -> None:
    assert ask(functions, method, path, content)[0] == status


def test_reading_a_policy_takes_no_body(functions: FunctionsServer) -> None:
    ask(functions, "POST", ACCOUNTS, {"accountId": "fsd-demo"})
    options = {"options": {"requestedPolicyVersion": 3}}
    assert ask(functions, "POST", f"{ACCOUNTS}/{EMAIL}:getIamPolicy", options)[0] == 400
    assert ask(functions, "POST", f"{ACCOUNTS}/{EMAIL}:getIamPolicy")[0] == 200


@pytest.mark.parametrize(
    ("path", "api"),
    [
        (f"{TOPIC}:getIamPolicy", "pubsub"),
        (f"{ACCOUNTS}/{EMAIL}", "iam"),
        ("storage/v1/b/bucket/iam", "storage"),
        ("v2/projects/p/locations/r/services/s:getIamPolicy", "run"),
        ("v2/projects/p/locations/r/functions", "cloudfunctions"),
        ("v1/projects/p/services:batchGet", "serviceusage"),
    ],
)
def test_a_service_that_is_not_enabled_says_how_to(functions: FunctionsServer, path: str, api: str) -> None:
    name = f"{api}.googleapis.com"
    functions.management.disabled_apis.add(name)
    status, answer = ask(functions, "GET", path)
    (detail,) = answer["error"]["details"]
    assert (status, detail["reason"], detail["metadata"]["service"]) == (403, "SERVICE_DISABLED", name)
    assert f"apis/api/{name}/overview" in answer["error"]["message"]
