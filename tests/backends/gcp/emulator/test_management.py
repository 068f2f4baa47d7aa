"""What a project is managed by, as the services answer over sockets."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from backends.gcp.emulator.functions import FunctionsServer

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
    functions.management.disabled.add(name)
    status, answer = ask(functions, "GET", path)
    (detail,) = answer["error"]["details"]
    assert (status, detail["reason"], detail["metadata"]["service"]) == (403, "SERVICE_DISABLED", name)
    assert f"apis/api/{name}/overview" in answer["error"]["message"]
