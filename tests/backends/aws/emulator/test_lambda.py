"""Lambda on this machine, by boto3: what functions see, limits, errors, environments, events, concurrency."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fsd_emulators.aws import InvocationRecord, LocalAws
from fsdcore.clock import SYSTEM_CLOCK, Deadline
from tests.backends.aws.conftest import Client
from tests.backends.aws.emulator.conftest import ROLE, RUNTIME, Maker, zipped


def until(condition: Callable[[], bool]) -> None:
    deadline = Deadline.after(60, SYSTEM_CLOCK)
    while not condition():
        assert not deadline.passed()
        SYSTEM_CLOCK.sleep(0.02)


def ended(aws: LocalAws) -> list[InvocationRecord]:
    """All invocations, once no event is left."""
    until(lambda: aws.pending() == 0)
    return aws.invocations()


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_function_sees_what_it_sees_on_lambda(aws: LocalAws, make_toy: Maker) -> None:
    toy = make_toy(MemorySize=512, Timeout=30, Environment={"Variables": {"COLOUR": "red"}})
    seen = toy.call(n=1).payload
    environ = seen["environ"]
    assert environ["COLOUR"] == "red"
    assert environ["AWS_ENDPOINT_URL"] == aws.endpoint
    assert environ["AWS_REGION"] == aws.region
    assert environ["AWS_LAMBDA_FUNCTION_NAME"] == "toy"
    assert environ["LAMBDA_TASK_ROOT"] == seen["cwd"]
    assert "PYTEST_CURRENT_TEST" not in environ
    assert (seen["memory"], seen["event"]) == ("512", {"n": 1})
    assert seen["arn"].endswith(":function:toy")
    assert 0 < seen["remaining"] <= 30_000
    assert not [part for part in seen["path"] if part.endswith("site-packages")]


def test_packages_that_are_not_in_the_zip_are_not_there(make_toy: Maker) -> None:
    answer = make_toy("import numpy\ndef handle(event, context): return 1").call()
    assert answer.error == "Unhandled"
    assert answer.payload["errorType"] == "Runtime.ImportModuleError"
    assert "numpy" in answer.payload["errorMessage"]


def test_the_second_call_is_warm_and_a_new_revision_is_cold(aws: LocalAws, make_toy: Maker) -> None:
    toy = make_toy()
    pids = [toy.call().payload["pid"] for _ in range(2)]
    toy.client.update_function_code(FunctionName="toy", ZipFile=zipped(app="def handle(event, context): return 7"))
    assert toy.call().payload == 7
    toy.client.update_function_configuration(FunctionName="toy", MemorySize=300)
    assert toy.call().payload == 7
    assert pids[0] == pids[1]
    records = aws.invocations()
    assert [record.cold for record in records] == [True, False, True, True]
    assert [record.memory_mb for record in records] == [256, 256, 256, 300]
    for record in records:
        assert (record.init_ms > 0) == record.cold
        assert record.duration_ms + record.init_ms <= record.billed_ms < record.duration_ms + record.init_ms + 1


def test_calls_at_once_have_environments_and_folders_of_their_own(
    aws: LocalAws, make_toy: Maker, tmp_path: Path
) -> None:
    toy = make_toy()
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(toy.call, wait_for=str(tmp_path / "go")) for _ in range(3)]
        until(lambda: len([record for record in aws.environments() if record.event]) == 3)
        (tmp_path / "go").touch()
        answers = [call.result().payload for call in calls]
    assert len({answer["pid"] for answer in answers}) == 3
    assert len({answer["temporary"] for answer in answers}) == 3


def test_an_idle_environment_is_frozen(aws: LocalAws, make_toy: Maker) -> None:
    make_toy().call()
    (environment,) = aws.environments()
    stat = Path(f"/proc/{environment.pid}/stat")
    if not stat.exists():
        pytest.skip("the system does not tell of processes in /proc")
    assert stat.read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize(
    ("event", "kind", "message", "outcome"),
    [
        ({"raise": "no"}, "ValueError", "no", "error"),
        ({"exit": 3}, "Runtime.ExitError", "exit status 3", "exit"),
        ({"exit": 0}, "Runtime.ExitError", "without providing a reason", "exit"),
        ({"allocate": 400_000_000}, "Runtime.ExitError", "signal: killed", "memory"),
        ({"sleep": 60}, "Sandbox.Timedout", "timed out after 2.00 seconds", "timeout"),
        ({"answer": 6_300_000}, "Function.ResponseSizeTooLarge", "6291556 bytes", "error"),
    ],
)
def test_a_call_that_fails_says_how_and_the_next_is_well(
    aws: LocalAws, make_toy: Maker, event: dict[str, Any], kind: str, message: str, outcome: str
) -> None:
    toy = make_toy(Timeout=2)
    failed = toy.call(**event)
    assert failed.error == "Unhandled"
    assert failed.payload["errorType"] == kind
    assert message in failed.payload["errorMessage"]
    assert toy.call(n=2).payload["event"] == {"n": 2}
    first, second = aws.invocations()
    assert first.outcome == outcome
    # What ends the process costs the next call a cold start (the runtime client ends at an answer refused);
    # an exception does not.
    assert second.cold == ("raise" not in event)


def test_logs_have_what_the_function_wrote_and_lambdas_report(aws: LocalAws, make_toy: Maker) -> None:
    answer = make_toy().call(colour="green")
    request = answer.payload["request"]
    for text in (answer.log, aws.logs("toy")):
        assert f"START RequestId: {request}" in text
        assert 'event {"colour": "green"}' in text
        assert f"REPORT RequestId: {request}\tDuration: " in text
    assert "Init Duration" in answer.log


@pytest.mark.parametrize(("kind", "limit"), [("RequestResponse", 6_291_456), ("Event", 1_048_576)])
def test_a_payload_over_the_limit_is_refused(make_toy: Maker, kind: str, limit: int) -> None:
    toy = make_toy("def handle(event, context): return len(event)")
    event = json.dumps("x" * (limit - 2))
    toy.client.invoke(FunctionName="toy", InvocationType=kind, Payload=event)
    with pytest.raises(ClientError) as refused:
        toy.client.invoke(FunctionName="toy", InvocationType=kind, Payload=event + " ")
    assert code(refused) == "RequestTooLargeException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_what_lambda_does_not_know_is_refused(make_toy: Maker) -> None:
    toy = make_toy()
    for arguments, expected in (
        ({"FunctionName": "absent"}, "ResourceNotFoundException"),
        ({"FunctionName": "toy", "Qualifier": "7"}, "ResourceNotFoundException"),
        ({"FunctionName": "toy", "Payload": b"{"}, "InvalidRequestContentException"),
    ):
        with pytest.raises(ClientError) as refused:
            toy.client.invoke(**arguments)
        assert code(refused) == expected
    assert toy.client.invoke(FunctionName="toy", InvocationType="DryRun")["StatusCode"] == 204


@pytest.mark.parametrize(
    "settings",
    [
        {"Timeout": 901},
        {"MemorySize": 10_241},
        {"EphemeralStorage": {"Size": 10_241}},
        {"Environment": {"Variables": {"LONG": "x" * 4_093}}},
        {"Code": {"ZipFile": b"no zip"}},
    ],
)
def test_settings_over_lambdas_limits_are_refused(make_toy: Maker, settings: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as refused:
        make_toy(**settings)
    assert code(refused) == "InvalidParameterValueException"


def test_an_event_is_tried_three_times_then_told_to_the_destination(
    aws: LocalAws, client: Client, make_toy: Maker
) -> None:
    sqs = client("sqs")
    urls = [sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("failed", "dead")]
    arns = [f"arn:aws:sqs:{aws.region}:000000000000:{name}" for name in ("failed", "dead")]
    toy = make_toy(DeadLetterConfig={"TargetArn": arns[1]})
    toy.client.put_function_event_invoke_config(
        FunctionName="toy", DestinationConfig={"OnFailure": {"Destination": arns[0]}}
    )
    event = {"raise": "never"}
    assert toy.send(**event) == 202
    records = ended(aws)
    assert [(record.attempt, record.outcome) for record in records] == [(1, "error"), (2, "error"), (3, "error")]
    assert len({record.request_id for record in records}) == 1
    told, dead = (sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] for url in urls)
    assert json.loads(told)["requestContext"]["approximateInvokeCount"] == 3
    assert json.loads(told)["responsePayload"]["errorMessage"] == "never"
    assert json.loads(dead) == event


def test_an_event_without_retries_is_tried_once(aws: LocalAws, make_toy: Maker) -> None:
    toy = make_toy()
    toy.client.put_function_event_invoke_config(FunctionName="toy", MaximumRetryAttempts=0)
    toy.send(exit=1)
    assert [record.outcome for record in ended(aws)] == ["exit"]


def test_over_the_concurrency_calls_are_refused_and_events_wait(aws: LocalAws, make_toy: Maker, tmp_path: Path) -> None:
    toy = make_toy()
    toy.client.put_function_concurrency(FunctionName="toy", ReservedConcurrentExecutions=1)
    toy.send(wait_for=str(tmp_path / "go"))
    until(lambda: any(record.event for record in aws.environments()))
    toy.send(n=2)
    with pytest.raises(ClientError) as refused:
        toy.call()
    assert code(refused) == "TooManyRequestsException"
    (tmp_path / "go").touch()
    assert [(record.outcome, record.attempt) for record in ended(aws)] == [("success", 1)] * 2


def test_a_killed_environment_ends_its_call_and_the_event_is_tried_again(
    aws: LocalAws, make_toy: Maker, tmp_path: Path
) -> None:
    toy = make_toy()
    toy.send(wait_for=str(tmp_path / "go"))
    until(lambda: any(record.event for record in aws.environments()))
    assert aws.kill(aws.environments()[0].name)
    (tmp_path / "go").touch()
    first, second = ended(aws)
    assert (first.outcome, second.outcome) == ("exit", "success")
    assert "signal: killed" in first.error
    assert first.environment != second.environment
    assert not aws.kill("no such environment")


def test_a_function_that_a_stack_made_is_found_with_its_code_in_s3(client: Client, aws: LocalAws) -> None:
    client("s3").create_bucket(Bucket="code")
    client("s3").put_object(Bucket="code", Key="toy.zip", Body=zipped(app="def handle(event, context): return 'made'"))
    function = {"FunctionName": "fsd-toy", "Runtime": RUNTIME, "Handler": "app.handle", "Role": ROLE}
    function |= {"Code": {"S3Bucket": "code", "S3Key": "toy.zip"}}  # type: ignore[dict-item]
    events = {"FunctionName": {"Ref": "Function"}, "Qualifier": "$LATEST", "MaximumRetryAttempts": 0}
    resources = {
        "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
        "Events": {"Type": "AWS::Lambda::EventInvokeConfig", "Properties": events},
    }
    stacks = client("cloudformation")
    stacks.create_stack(StackName="fsd-toy", TemplateBody=json.dumps({"Resources": resources}))
    until(lambda: "IN_PROGRESS" not in stacks.describe_stacks(StackName="fsd-toy")["Stacks"][0]["StackStatus"])
    answer = client("lambda").invoke(FunctionName="fsd-toy")
    assert json.loads(answer["Payload"].read()) == "made"
    assert aws.invocations()[0].function == "fsd-toy"
