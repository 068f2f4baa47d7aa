"""Starting workers on Lambda: what is asked, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsd_aws.compute import FunctionMissingError, LambdaCompute
from fsdcore.contracts.compute import Invocation
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import ComputeError, CredentialsError, FsdError
from tests.backends.aws.stubs import StubbedClients, make_deployment

INVOCATION = Invocation(
    run="0" * 16,
    rank=3,
    lane=0,
    plan="plan",
    batches=(10,),
    settings=RunSettings(workers=4, branching=2, deadline_seconds=10.0),
    run_seconds=60.0,
)


@pytest.fixture
def clients() -> Iterator[StubbedClients]:
    made = StubbedClients()
    yield made
    made.check()
    made.close()


@pytest.fixture
def compute(clients: StubbedClients) -> LambdaCompute:
    return LambdaCompute(clients, make_deployment(name="demo", memory_mb=512, timeout_seconds=30))


def test_a_worker_is_one_event(clients: StubbedClients, compute: LambdaCompute) -> None:
    expected = {"FunctionName": "fsd-demo", "InvocationType": "Event", "Payload": INVOCATION.to_json()}
    clients.answers("lambda", "invoke", {"StatusCode": 202}, **expected)
    compute.invoke(INVOCATION)


def test_the_limits_are_those_of_the_deployment(compute: LambdaCompute) -> None:
    limits = compute.capabilities
    assert (limits.max_workers, limits.max_seconds, limits.memory_bytes) == (4, 30.0, 512 << 20)


def limit(free: int) -> dict[str, dict[str, int]]:
    return {"AccountLimit": {"ConcurrentExecutions": 1_000, "UnreservedConcurrentExecutions": free}}


def test_a_client_looks_once_whether_so_many_may_run(clients: StubbedClients) -> None:
    compute = LambdaCompute(clients, make_deployment(name="demo"), looks=True)
    clients.answers("lambda", "get_account_settings", limit(4))
    clients.answers("lambda", "invoke", {"StatusCode": 202})
    clients.answers("lambda", "invoke", {"StatusCode": 202})
    compute.invoke(INVOCATION)
    compute.invoke(INVOCATION)


def test_more_workers_than_the_account_allows_are_refused_before_any_begins(clients: StubbedClients) -> None:
    compute = LambdaCompute(clients, make_deployment(name="demo"), looks=True)
    clients.answers("lambda", "get_account_settings", limit(3))
    with pytest.raises(ComputeError, match=r"allows 3 functions at once, and 4 workers are wanted; .* Service Quotas"):
        compute.invoke(INVOCATION)


def test_who_may_not_ask_for_the_limit_runs_all_the_same(clients: StubbedClients) -> None:
    compute = LambdaCompute(clients, make_deployment(name="demo"), looks=True)
    clients.fails("lambda", "get_account_settings", "AccessDeniedException")
    clients.answers("lambda", "invoke", {"StatusCode": 202})
    compute.invoke(INVOCATION)


@pytest.mark.parametrize(
    ("code", "expected", "text"),
    [
        (
            "ResourceNotFoundException",
            FunctionMissingError,
            "fsd-demo is gone; run: fsd destroy aws --name demo, then: fsd deploy aws --name demo",
        ),
        ("TooManyRequestsException", ComputeError, "starting rank 3 on function fsd-demo"),
        ("ExpiredTokenException", CredentialsError, "have expired"),
        ("AccessDeniedException", ComputeError, "AWS refused"),
    ],
)
def test_each_refusal_is_its_own_error(
    clients: StubbedClients, compute: LambdaCompute, code: str, expected: type[FsdError], text: str
) -> None:
    clients.fails("lambda", "invoke", code)
    with pytest.raises(FsdError, match=text) as caught:
        compute.invoke(INVOCATION)
    assert type(caught.value) is expected


def test_an_event_that_lambda_would_not_take_is_not_sent(compute: LambdaCompute) -> None:
    many = Invocation.from_json(INVOCATION.to_json().replace(b"[10]", b"[" + b"10," * 400_000 + b"10]"))
    with pytest.raises(ComputeError, match=r"400,001 batches.* use larger batches"):
        compute.invoke(many)
