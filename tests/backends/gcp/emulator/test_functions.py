"""Local Cloud Functions, deployed to by Google's own client: the uploaded source is what runs, within its limits."""

from __future__ import annotations

import http.client
import io
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from google.api_core.exceptions import Conflict, GoogleAPICallError, InvalidArgument, NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud import functions_v2

from fsd_emulators.gcp.control import memory_bytes
from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.errors import ApiError
from fsd_emulators.gcp.functions import FunctionsServer
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.faults import Crash, Disconnect, Duplicate, Fault, Refuse

PARENT = f"projects/{PROJECT}/locations/{REGION}"
SOURCE = """
import os, pathlib, time

CALLS = 0

def worker(request):
    global CALLS
    CALLS += 1
    order = request.get_json(silent=True) or {}
    if "file" in order:
        pathlib.Path(order["file"] + ".begun").touch()
        while not pathlib.Path(order["file"]).exists():
            time.sleep(0.01)
        pathlib.Path(order["file"] + ".ended").touch()
    if "seconds" in order:
        time.sleep(order["seconds"])
    if "bytes" in order:
        held = bytearray(order["bytes"])
        time.sleep(60)
    if "end" in order:
        os._exit(order["end"])
    if "error" in order:
        raise ValueError(order["error"])
    return {"calls": CALLS, "pid": os.getpid(), "path": request.path, "environment": dict(os.environ)}
"""
TOKEN = {"Authorization": "Bearer emulator"}


def archive(main: str = SOURCE, requirements: str = "functions-framework>=3\n", **files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        for name, text in {"main.py": main, "requirements.txt": requirements, **files}.items():
            out.writestr(name, text)
    return packed.getvalue()


class Cloud:
    """A client, and what tests do with it."""

    def __init__(self, server: FunctionsServer) -> None:
        self.server = server
        self.client: Any = functions_v2.FunctionServiceClient(
            transport="rest", credentials=AnonymousCredentials(), client_options={"api_endpoint": server.url}
        )

    def function(self, source: bytes | None = None, entry: str = "worker", **service: Any) -> Any:
        return functions_v2.Function(
            build_config=functions_v2.BuildConfig(
                runtime="python311",
                entry_point=entry,
                source=functions_v2.Source(storage_source=self.upload(source or archive())),
            ),
            service_config=functions_v2.ServiceConfig(**service),
        )

    def upload(self, source: bytes) -> Any:
        answer = self.client.generate_upload_url(request={"parent": PARENT})
        assert requests.put(answer.upload_url, data=source, timeout=20.0).status_code == 200
        return answer.storage_source

    def create(self, function: Any, name: str = "fn") -> Any:
        return self.client.create_function(parent=PARENT, function=function, function_id=name).result(timeout=60.0)

    def deploy(self, source: bytes | None = None, **service: Any) -> str:
        """Returns the URL."""
        return str(self.create(self.function(source, **service)).service_config.uri)


def ask(url: str, headers: dict[str, str] | None = None, **order: Any) -> requests.Response:
    return requests.post(url, json=order, headers=TOKEN if headers is None else headers, timeout=60.0)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = Deadline.after(30.0, SYSTEM_CLOCK)
    while not condition():
        assert not deadline.passed(), "it did not come about"
        SYSTEM_CLOCK.sleep(0.01)


@pytest.fixture
def cloud(functions: FunctionsServer) -> Cloud:
    return Cloud(functions)


def test_a_function_is_made_found_and_deleted(cloud: Cloud) -> None:
    made = cloud.create(cloud.function(available_memory="512Mi", timeout_seconds=30))
    assert made.state == functions_v2.Function.State.ACTIVE
    assert made.service_config.uri == f"{cloud.server.url}/run/{PROJECT}/{REGION}/fn"
    found = cloud.client.get_function(name=made.name)
    assert (found.service_config.available_memory, found.service_config.timeout_seconds) == ("512Mi", 30)
    assert [item.name for item in cloud.client.list_functions(parent=PARENT)] == [f"{PARENT}/functions/fn"]
    cloud.client.delete_function(name=made.name).result(timeout=60.0)
    assert list(cloud.client.list_functions(parent=PARENT)) == []
    assert ask(made.service_config.uri).status_code == 404


def test_an_operation_says_what_it_is_about(cloud: Cloud) -> None:
    operation = cloud.client.create_function(parent=PARENT, function=cloud.function(), function_id="fn")
    operation.result(timeout=60.0)
    assert operation.metadata.target == f"{PARENT}/functions/fn"


def test_the_source_runs_with_the_environment_it_was_given_and_no_other(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSD_SECRET_OF_THE_CLIENT", "x")
    environment = ask(cloud.deploy(environment_variables={"ANSWER": "42"})).json()["environment"]
    assert (environment["ANSWER"], environment["K_SERVICE"], environment["K_REVISION"]) == ("42", "fn", "fn-00001")
    assert "FSD_SECRET_OF_THE_CLIENT" not in environment


def test_what_lies_beside_the_source_is_not_seen(cloud: Cloud) -> None:
    with pytest.raises(InvalidArgument, match="No module named 'fsdcore'"):
        cloud.create(cloud.function(archive("import fsdcore\n" + SOURCE)))
    made = cloud.create(cloud.function(archive("import fsdcore\n" + SOURCE, **{"fsdcore.py": ""})), "whole")
    assert made.state == functions_v2.Function.State.ACTIVE


def test_a_path_below_the_url_is_the_functions(cloud: Cloud) -> None:
    assert ask(cloud.deploy() + "/a/b").json()["path"] == "/a/b"


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"Authorization": "Basic eA=="}, 401), ({"Authorization": "Bearer refused"}, 403)],
)
def test_a_request_needs_an_identity_token(cloud: Cloud, headers: dict[str, str], status: int) -> None:
    url = cloud.deploy()
    assert ask(url, headers).status_code == status
    assert cloud.server.log.count("invoke", str(status)) == 1


def test_a_warm_instance_is_used_again(cloud: Cloud) -> None:
    url = cloud.deploy()
    answers = [ask(url).json() for _ in range(3)]
    assert [answer["calls"] for answer in answers] == [1, 2, 3]
    assert (cloud.server.log.count("start"), cloud.server.log.count("invoke")) == (1, 3)


def test_after_a_kill_the_next_request_starts_cold(cloud: Cloud) -> None:
    url = cloud.deploy()
    before = ask(url).json()
    assert cloud.server.kill_instances() == 1
    after = ask(url).json()
    assert (after["calls"], after["pid"] != before["pid"]) == (1, True)
    assert cloud.server.log.count("start") == 2


def test_each_request_has_an_instance_of_its_own(cloud: Cloud, tmp_path: Path) -> None:
    url, go = cloud.deploy(), tmp_path / "go"
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(ask, url, file=str(go)) for _ in range(2)]
        wait_for(lambda: cloud.server.log.count("start") == 2)
        go.touch()
        answers = [future.result().json() for future in held]
    assert len({answer["pid"] for answer in answers}) == 2
    assert [answer["calls"] for answer in answers] == [1, 1]


def test_no_more_instances_than_allowed(cloud: Cloud, tmp_path: Path) -> None:
    url, go = cloud.deploy(max_instance_count=1), tmp_path / "go"
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(ask, url, file=str(go)) for _ in range(2)]
        wait_for((tmp_path / "go.begun").exists)
        go.touch()
        assert len({future.result().json()["pid"] for future in held}) == 1
    assert cloud.server.log.count("start") == 1


def test_a_busy_function_at_its_limit_refuses_in_the_end(cloud: Cloud, tmp_path: Path) -> None:
    url, go = cloud.deploy(max_instance_count=1), tmp_path / "go"
    cloud.server.queue_seconds = 0.05
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask, url, file=str(go))
        wait_for((tmp_path / "go.begun").exists)
        assert ask(url).status_code == 429
        go.touch()
        assert held.result().status_code == 200


def test_a_request_goes_on_when_its_caller_has_gone(cloud: Cloud, tmp_path: Path) -> None:
    url, go = urlsplit(cloud.deploy()), tmp_path / "go"
    caller = http.client.HTTPConnection(url.netloc)
    caller.request("POST", url.path, f'{{"file": "{go}"}}', {**TOKEN, "Content-Type": "application/json"})
    wait_for((tmp_path / "go.begun").exists)
    caller.close()
    go.touch()
    wait_for((tmp_path / "go.ended").exists)
    wait_for(lambda: cloud.server.log.count("invoke") == 1)


def test_a_request_whose_body_does_not_come_to_its_end_is_none(cloud: Cloud) -> None:
    url = urlsplit(cloud.deploy())
    caller = http.client.HTTPConnection(url.netloc)
    caller.putrequest("POST", url.path)
    for name, value in {**TOKEN, "Content-Length": "100"}.items():
        caller.putheader(name, value)
    caller.endheaders(b'{"half')
    caller.close()
    assert ask(url.geturl()).json()["calls"] == 1
    assert cloud.server.log.count("invoke", None) == 1


def test_a_request_over_its_time_is_ended_with_its_instance(cloud: Cloud) -> None:
    # Long enough for the cold start that follows, on a busy machine too.
    url = cloud.deploy(timeout_seconds=5)
    assert ask(url, seconds=60).status_code == 504
    assert ask(url).json()["calls"] == 1
    assert cloud.server.log.count("start") == 2


def test_an_instance_over_its_memory_is_ended(cloud: Cloud) -> None:
    url = cloud.deploy(available_memory="256Mi")
    answer = ask(url, bytes=400 << 20)
    assert (answer.status_code, "Memory limit" in answer.text) == (503, True)
    assert ask(url).json()["calls"] == 1


def test_an_instance_that_ends_itself_is_replaced(cloud: Cloud) -> None:
    url = cloud.deploy()
    assert ask(url, end=3).status_code == 503
    assert ask(url).json()["calls"] == 1


def test_an_error_of_the_function_leaves_the_instance(cloud: Cloud) -> None:
    url = cloud.deploy()
    assert ask(url, error="wrong").status_code == 500
    assert ask(url).json()["calls"] == 2


@pytest.mark.parametrize(
    ("fault", "status"), [(Refuse("invoke"), 503), (Refuse("invoke", error="RESOURCE_EXHAUSTED"), 429)]
)
def test_a_refused_request_reaches_no_instance(cloud: Cloud, fault: Fault, status: int) -> None:
    url = cloud.deploy()
    cloud.server.faults.set(fault)
    assert ask(url).status_code == status
    assert cloud.server.log.count("invoke", str(status)) == 1
    cloud.server.faults.set()
    assert ask(url).json()["calls"] == 1


def test_a_request_that_is_cut_off_is_answered_all_the_same(cloud: Cloud) -> None:
    url = cloud.deploy()
    cloud.server.faults.set(Disconnect("invoke"))
    with pytest.raises(requests.ConnectionError):
        ask(url)
    wait_for(lambda: cloud.server.log.count("invoke") == 1)
    cloud.server.faults.set()
    assert ask(url).json()["calls"] == 2


def test_a_repeated_request_reaches_two_instances(cloud: Cloud, tmp_path: Path) -> None:
    url, go = cloud.deploy(), tmp_path / "go"
    cloud.server.faults.set(Duplicate("invoke"))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, url, file=str(go))
        wait_for(lambda: cloud.server.log.count("start") == 2)
        go.touch()
        assert answer.result().status_code == 200
    wait_for(lambda: cloud.server.log.count("invoke") == 2)


def test_an_instance_can_be_killed_by_what_it_is_asked(cloud: Cloud) -> None:
    url = cloud.deploy()
    cloud.server.faults.set(Crash("invoke", '"seconds": 60', seconds=0.2))
    assert ask(url, seconds=60).status_code == 503
    assert ask(url, seconds=0).json()["calls"] == 1


def test_an_instance_can_be_killed_before_it_sees_what_it_is_asked(cloud: Cloud, tmp_path: Path) -> None:
    url, go = cloud.deploy(), tmp_path / "go"
    go.touch()
    cloud.server.faults.set(Crash("invoke", '"file"', times=1))
    assert ask(url, file=str(go)).status_code == 503
    assert not Path(f"{go}.begun").exists()
    assert ask(url, file=str(go)).status_code == 200


def test_a_request_over_32_mib_is_refused(cloud: Cloud) -> None:
    answer = requests.post(cloud.deploy(), data=bytes((32 << 20) + 1), headers=TOKEN, timeout=60.0)
    assert answer.status_code == 413


def test_an_update_changes_what_its_mask_names(cloud: Cloud) -> None:
    url = cloud.deploy(environment_variables={"A": "1"}, timeout_seconds=30)
    change = functions_v2.Function(
        name=f"{PARENT}/functions/fn",
        service_config=functions_v2.ServiceConfig(environment_variables={"A": "2"}, timeout_seconds=5),
    )
    mask = {"paths": ["service_config.environment_variables"]}
    changed = cloud.client.update_function(function=change, update_mask=mask).result(timeout=60.0)
    assert (changed.service_config.revision, changed.service_config.timeout_seconds) == ("fn-00002", 30)
    assert ask(url).json()["environment"]["A"] == "2"


def test_a_function_that_is_there_cannot_be_made_again(cloud: Cloud) -> None:
    cloud.deploy()
    with pytest.raises(Conflict):
        cloud.create(cloud.function())


@pytest.mark.parametrize("call", ["get_function", "delete_function"])
def test_a_missing_function_is_not_found(cloud: Cloud, call: str) -> None:
    with pytest.raises(NotFound):
        getattr(cloud.client, call)(name=f"{PARENT}/functions/none")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (archive("import nowhere_to_be_found\n"), "nowhere_to_be_found"),
        (archive("def other(request): return ''\n"), "worker"),
        (archive(requirements="nowhere-to-be-found==1.0\n"), "nowhere-to-be-found==1.0 is not installed"),
        (archive(requirements="flask<1\n"), "flask<1: this machine has version"),
        (archive(requirements="flask !\n"), "requirements.txt"),
        (b"no zip", "not a zip archive"),
    ],
)
def test_a_source_that_does_not_start_fails_its_operation(cloud: Cloud, source: bytes, problem: str) -> None:
    with pytest.raises(GoogleAPICallError, match=problem):
        cloud.create(cloud.function(source))
    found = cloud.client.get_function(name=f"{PARENT}/functions/fn")
    assert found.state == functions_v2.Function.State.FAILED


def test_an_operation_ends_whatever_happens_to_its_work(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("fsd_emulators.gcp.control.build", full)
    with pytest.raises(GoogleAPICallError, match="Internal error"):
        cloud.create(cloud.function())


def test_requests_are_answered_while_a_function_is_updated(cloud: Cloud) -> None:
    url = cloud.deploy()
    change = cloud.function(environment_variables={"A": "2"})
    change.name = f"{PARENT}/functions/fn"
    operation = cloud.client.update_function(function=change)
    statuses = {ask(url).status_code}
    while not operation.done():
        statuses.add(ask(url).status_code)
    assert statuses == {200}
    assert ask(url).json()["environment"]["A"] == "2"


def test_a_failed_function_can_be_mended(cloud: Cloud) -> None:
    with pytest.raises(GoogleAPICallError):
        cloud.create(cloud.function(b"no zip"))
    mended = cloud.function()
    mended.name = f"{PARENT}/functions/fn"
    made = cloud.client.update_function(function=mended).result(timeout=60.0)
    assert ask(made.service_config.uri).status_code == 200


@pytest.mark.parametrize("service", [{"available_memory": "much"}, {"timeout_seconds": 3601}])
def test_a_description_that_is_not_sound_is_refused(cloud: Cloud, service: dict[str, Any]) -> None:
    with pytest.raises(GoogleAPICallError) as caught:
        cloud.create(cloud.function(**service))
    assert caught.value.code == 400


def test_a_name_that_is_not_sound_is_refused(cloud: Cloud) -> None:
    with pytest.raises(GoogleAPICallError, match="not valid"):
        cloud.create(cloud.function(), "Not_Valid")


def test_a_policy_is_kept(cloud: Cloud) -> None:
    cloud.deploy()
    policy = {"bindings": [{"role": "roles/run.invoker", "members": ["serviceAccount:a@b"]}]}
    cloud.client.set_iam_policy(request={"resource": f"{PARENT}/functions/fn", "policy": policy})
    kept = cloud.client.get_iam_policy(request={"resource": f"{PARENT}/functions/fn"})
    assert [(item.role, list(item.members)) for item in kept.bindings] == [
        ("roles/run.invoker", ["serviceAccount:a@b"])
    ]


def test_nothing_is_left_when_the_server_stops(tmp_path: Path) -> None:
    with FunctionsServer(tmp_path) as server:
        pid = ask(Cloud(server).deploy()).json()["pid"]
        assert runs(pid)
    wait_for(lambda: not runs(pid))


def runs(pid: int) -> bool:
    """Whether there is such a process that is more than an entry nobody has asked for."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("text", "size"), [("256M", 256_000_000), ("512Mi", 512 << 20), ("1.5Gi", 3 << 29), ("1G", 10**9), ("123", 123)]
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert memory_bytes(text) == size


def test_what_is_no_amount_of_memory_is_refused() -> None:
    with pytest.raises(ApiError, match="12 apples"):
        memory_bytes("12 apples")


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}], ids=str
)
def test_what_a_web_page_sends_is_refused(cloud: Cloud, headers: dict[str, str]) -> None:
    url = cloud.deploy()
    made = ask(url).json()
    assert ask(url, {**TOKEN, **headers}).status_code == 403
    assert requests.get(f"{cloud.server.url}/v2/{PARENT}/functions", headers=headers, timeout=20.0).status_code == 403
    # Instances listen as well, each at a port of its own.
    instance = f"http://127.0.0.1:{made['environment']['PORT']}/"
    assert requests.post(instance, json={}, headers=headers, timeout=20.0).status_code == 403
    assert requests.post(instance, json={}, timeout=20.0).json()["calls"] == 2
    assert ask(url).json()["calls"] == 3
