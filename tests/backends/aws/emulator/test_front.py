"""The endpoint: what it passes on, logs, refuses, and makes go wrong."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from fsd_emulators.aws import LocalAws
from fsd_emulators.processes import DIRECT
from fsdcore.faults import Crash, Disconnect, Duplicate, InPart, Refuse
from tests.backends.aws.conftest import Client
from tests.backends.aws.emulator.conftest import Maker

KEY = "a folder/x y+z%20ü"


@pytest.fixture
def queue(client: Client) -> str:
    return str(client("sqs").create_queue(QueueName="q")["QueueUrl"])


def received(client: Client, queue: str) -> list[str]:
    return [
        message["Body"]
        for message in client("sqs")
        .receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        .get("Messages", [])
    ]


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


@pytest.mark.parametrize("size", [0, 1, 6_000_000])
def test_objects_pass_unchanged(client: Client, size: int) -> None:
    s3, body = client("s3"), bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key=KEY, Body=body)
    assert s3.head_object(Bucket="bucket", Key=KEY)["ContentLength"] == size
    assert s3.get_object(Bucket="bucket", Key=KEY)["Body"].read() == body
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="bucket")["Contents"]] == [KEY]
    if size > 10:
        assert s3.get_object(Bucket="bucket", Key=KEY, Range="bytes=3-9")["Body"].read() == body[3:10]
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket="bucket", Key=KEY, Body=b"", IfNoneMatch="*")
    assert code(refused) == "PreconditionFailed"


def test_a_client_that_waits_to_send_an_object_is_told_to_go_on(aws: LocalAws, client: Client) -> None:
    client("s3").create_bucket(Bucket="bucket")
    address = urlsplit(aws.endpoint)
    head = f"PUT /bucket/k HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"body")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 ")
    assert client("s3").get_object(Bucket="bucket", Key="k")["Body"].read() == b"body"


def test_every_request_is_in_the_log(aws: LocalAws, client: Client, queue: str, make_toy: Maker) -> None:
    client("s3").create_bucket(Bucket="bucket")
    toy, sqs, sns = make_toy(), client("sqs"), client("sns")
    before = aws.requests()[-1].number
    request = toy.call(put="bucket").payload["request"]
    topic = sns.create_topic(Name="t")["TopicArn"]
    attributes = {"to": {"DataType": "Binary", "BinaryValue": b"1234"}}
    entries = [{"Id": str(n), "Message": "abc", "MessageAttributes": attributes} for n in range(2)]
    sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    sqs.send_message_batch(QueueUrl=queue, Entries=[{"Id": str(n), "MessageBody": "abcd"} for n in range(3)])
    handles = [
        message["ReceiptHandle"] for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    ]
    sqs.delete_message_batch(
        QueueUrl=queue, Entries=[{"Id": str(n), "ReceiptHandle": h} for n, h in enumerate(handles)]
    )
    sqs.receive_message(QueueUrl=queue)
    log = [record for record in aws.requests(before) if record.action != "CreateTopic"]
    assert [(r.service, r.action, r.resource, r.status, r.entries, r.billed_bytes) for r in log] == [
        ("s3", "PutObject", f"bucket/{request}", 200, 0, 0),
        ("lambda", "Invoke", "toy", 200, 0, 0),
        ("sns", "PublishBatch", topic, 200, 2, 2 * (3 + len("to") + len("Binary") + 4)),
        ("sqs", "SendMessageBatch", "q", 200, 3, 12),
        ("sqs", "ReceiveMessage", "q", 200, len(handles), 0),
        ("sqs", "DeleteMessageBatch", "q", 200, len(handles), 0),
        ("sqs", "ReceiveMessage", "q", 200, 0, 0),
    ]
    assert log[0].source == aws.invocations()[0].environment
    assert {record.source for record in log[1:]} == {""}
    assert len({record.number for record in log}) == len(log)


@pytest.fixture
def topic(client: Client, queue: str) -> str:
    """Delivers what is for ``a`` to the queue."""
    sns = client("sns")
    made = str(sns.create_topic(Name="t")["TopicArn"])
    attributes = {"RawMessageDelivery": "true", "FilterPolicy": '{"target": ["a"]}'}
    sns.subscribe(TopicArn=made, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:000000000000:q", Attributes=attributes)
    return made


def carrying(number: int, target: str, **binary: bytes) -> dict[str, Any]:
    """An entry of a batch."""
    attributes: dict[str, Any] = {"target": {"DataType": "String", "StringValue": target}}
    attributes |= {name: {"DataType": "Binary", "BinaryValue": value} for name, value in binary.items()}
    return {"Id": str(number), "Message": f"m{number}", "MessageAttributes": attributes}


def test_a_batch_keeps_binary_attributes_and_is_one_request(
    aws: LocalAws, client: Client, queue: str, topic: str
) -> None:
    # One of them is as large as SNS takes: as base64 it would be more.
    values = [bytes(range(256)), b"\0", bytes(250_000)]
    entries = [carrying(number, "a", frame=value) for number, value in enumerate(values)]
    entries += [carrying(3, "b", frame=b"for nobody"), carrying(4, "a"), {"Id": "5", "Message": ""}]
    answer = client("sns").publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "1", "2", "3", "4"]
    assert [entry["Id"] for entry in answer["Failed"]] == ["5"]
    asked = {"QueueUrl": queue, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "WaitTimeSeconds": 1}
    messages = client("sqs").receive_message(**asked)["Messages"]
    found = {message["Body"]: message["MessageAttributes"].get("frame") for message in messages}
    assert found.pop("m4") is None
    kept = {f"m{number}": {"DataType": "Binary", "BinaryValue": value} for number, value in enumerate(values)}
    assert found == kept
    (publish,) = [record for record in aws.requests() if record.service == "sns" and "Publish" in record.action]
    overhead = len("targetStringa") + len("frameBinary") + len("m0")
    alone = len("targetStringb") + len("frameBinary") + len("m3for nobody") + len("targetStringa") + len("m4")
    assert publish.billed_bytes == sum(map(len, values)) + 3 * overhead + alone


def test_one_message_may_be_as_large_as_the_topic_allows(client: Client) -> None:
    sns = client("sns")
    plain = sns.create_topic(Name="plain")["TopicArn"]
    large = sns.create_topic(Name="large", Attributes={"MaximumMessageSize": "1048576"})["TopicArn"]
    sns.publish(TopicArn=plain, Message="x" * 262_144)
    sns.publish(TopicArn=large, Message="x" * 1_048_576)
    for topic, size in ((plain, 262_145), (large, 1_048_577)):
        with pytest.raises(ClientError, match="Message too long") as refused:
            sns.publish(TopicArn=topic, Message="x" * size)
        assert code(refused) == "InvalidParameter"


def test_a_batch_over_the_limit_of_sns_is_refused(client: Client) -> None:
    sns = client("sns")
    plain = sns.create_topic(Name="plain")["TopicArn"]
    large = sns.create_topic(Name="large", Attributes={"MaximumMessageSize": "1048576"})["TopicArn"]
    entries = [{"Id": str(n), "Message": "x" * 131_072} for n in range(2)]
    sns.publish_batch(TopicArn=plain, PublishBatchRequestEntries=entries)
    entries[1]["Message"] += "x"
    with pytest.raises(ClientError) as refused:
        sns.publish_batch(TopicArn=plain, PublishBatchRequestEntries=entries)
    assert code(refused) == "BatchRequestTooLong"
    assert len(sns.publish_batch(TopicArn=large, PublishBatchRequestEntries=entries)["Successful"]) == 2


def test_what_sns_and_sqs_refuse_is_refused(client: Client, queue: str) -> None:
    sns, sqs = client("sns"), client("sqs")
    topic = sns.create_topic(Name="t")["TopicArn"]
    refusals: list[tuple[Callable[[], Any], str]] = [
        (lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=21), "InvalidParameterValue"),
        (lambda: sqs.send_message(QueueUrl=queue, MessageBody=""), "MissingParameter"),
        (lambda: sns.publish(TopicArn=topic, Message=""), "InvalidParameter"),
    ]
    for call, expected in refusals:
        with pytest.raises(ClientError) as refused:
            call()
        assert code(refused) == expected


def test_an_empty_message_of_a_batch_fails_alone(client: Client, queue: str) -> None:
    sns = client("sns")
    topic = sns.create_topic(Name="t")["TopicArn"]
    sns.subscribe(
        TopicArn=topic,
        Protocol="sqs",
        Endpoint="arn:aws:sqs:us-east-1:000000000000:q",
        Attributes={"RawMessageDelivery": "true"},
    )
    for message in ("one", ""):
        entries = [{"Id": "a", "Message": message}, {"Id": "b", "Message": ""}, {"Id": "c", "Message": message}]
        answer = sns.publish_batch(TopicArn=topic, PublishBatchRequestEntries=entries)
        failed = {entry["Id"]: entry["Code"] for entry in answer["Failed"]}
        assert failed == dict.fromkeys("b" if message else "abc", "InvalidParameter")
        assert [entry["Id"] for entry in answer["Successful"]] == (["a", "c"] if message else [])
    assert received(client, queue) == ["one", "one"]


def test_errors_have_the_shape_of_their_service(aws: LocalAws, client: Client, queue: str, make_toy: Maker) -> None:
    toy = make_toy()
    aws.set_faults(Refuse(error="ExpiredToken", status=403))
    for call in (
        lambda: client("sqs").send_message(QueueUrl=queue, MessageBody="x"),
        lambda: client("sns").list_topics(),
        lambda: client("s3").list_objects_v2(Bucket="bucket"),
        lambda: client("cloudformation").describe_stacks(),
        lambda: client("sts").get_caller_identity(),
        toy.call,
    ):
        with pytest.raises(ClientError) as refused:
            call()
        assert code(refused) == "ExpiredToken"
    aws.set_faults()
    assert client("sns").list_topics()["Topics"] == []


def test_faults_come_when_told_and_the_sdk_tries_again(aws: LocalAws, client: Client, queue: str) -> None:
    call = "sqs:SendMessage"
    aws.set_faults(Refuse(call, error="ThrottlingException", skip=1, times=1), Disconnect(call, skip=1, times=1))
    patient = client("sqs", retries={"mode": "standard", "total_max_attempts": 4})
    for text in ("a", "b"):
        patient.send_message(QueueUrl=queue, MessageBody=text)
    assert sorted(received(client, queue)) == ["a", "b"]
    sent = [record for record in aws.requests() if record.action == "SendMessage"]
    assert Counter(record.fault for record in sent)["Refuse"] == 1


def test_an_answer_cut_off_makes_a_true_duplicate(aws: LocalAws, client: Client, queue: str) -> None:
    aws.set_faults(Disconnect("sqs:SendMessage", times=1, when="after"))
    client("sqs", retries={"total_max_attempts": 3}).send_message(QueueUrl=queue, MessageBody="twice")
    assert received(client, queue) == ["twice", "twice"]


def test_a_request_is_repeated_or_reset(aws: LocalAws, client: Client, queue: str) -> None:
    aws.set_faults(Duplicate("sqs:SendMessage"))
    client("sqs").send_message(QueueUrl=queue, MessageBody="twice")
    aws.set_faults(Disconnect("sqs:SendMessage"))
    with pytest.raises(ConnectionClosedError):
        client("sqs").send_message(QueueUrl=queue, MessageBody="lost")
    assert received(client, queue) == ["twice", "twice"]


def test_every_second_entry_of_a_batch_fails(aws: LocalAws, client: Client, queue: str) -> None:
    aws.set_faults(InPart(error="InternalError"))
    entries = [{"Id": str(n), "MessageBody": f"m{n}"} for n in range(5)]
    answer = client("sqs").send_message_batch(QueueUrl=queue, Entries=entries)
    assert [entry["Id"] for entry in answer["Failed"]] == ["0", "2", "4"]
    assert [entry["Id"] for entry in answer["Successful"]] == ["1", "3"]
    assert sorted(received(client, queue)) == ["m1", "m3"]


def test_a_worker_is_killed_as_it_asks(aws: LocalAws, client: Client, make_toy: Maker) -> None:
    client("s3").create_bucket(Bucket="bucket")
    aws.set_faults(Crash("s3:PutObject", by="worker", times=1))
    client("s3").put_object(Bucket="bucket", Key="by the client", Body=b"")
    toy = make_toy()
    assert "signal: killed" in toy.call(put="bucket").payload["errorMessage"]
    request = toy.call(put="bucket").payload["request"]
    keys = [item["Key"] for item in client("s3").list_objects_v2(Bucket="bucket")["Contents"]]
    assert sorted(keys) == sorted(["by the client", request])


FOREIGN: list[dict[str, str]] = [
    {"Host": "evil.example"},
    {"Host": "localhost.evil.example:80"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1"},
]


def status(url: str, headers: dict[str, str], body: bytes | None = None) -> int:
    # Such a request a browser sends without asking first.
    request = urllib.request.Request(url, body, {"Content-Type": "text/plain", **headers})
    try:
        with DIRECT.open(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.parametrize("headers", FOREIGN)
def test_what_a_web_page_sends_is_refused(aws: LocalAws, make_toy: Maker, headers: dict[str, str]) -> None:
    toy = make_toy()
    before = len(aws.requests())
    for path, body in (
        ("/2015-03-31/functions", b"{}"),
        ("/2015-03-31/functions/toy/invocations", b"{}"),
        ("/bucket/key", None),
        ("/", b"Action=ListQueues"),
        ("/_fsd/requests", None),
        ("/_fsd/reset", b""),
    ):
        assert status(aws.endpoint + path, headers, body) == 403
    assert len(aws.requests()) == before
    assert toy.call().error is None


def test_what_is_behind_the_endpoint_refuses_it_too(aws: LocalAws, make_toy: Maker) -> None:
    environ = make_toy().call().payload["environ"]
    runtime = f"http://{environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/init/error"
    started = next(process for process in psutil.process_iter(["cmdline"]) if _is_ministack(process, aws))
    (port,) = {each.laddr.port for each in started.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    health = f"http://127.0.0.1:{port}/_ministack/health"
    assert status(health, {}) == 200
    for headers in FOREIGN:
        assert status(health, headers) == 403
        assert status(runtime, headers, b"{}") == 403


def _is_ministack(process: Any, aws: LocalAws) -> bool:
    return "ministack_program.py" in " ".join(process.info["cmdline"] or ()) and str(aws.folder) in str(process.cwd())


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_clients_may_call_this_machine_by_either_name(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch, client: Client, name: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.endpoint.replace("127.0.0.1", name))
    s3 = client("s3")
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=b"data")
    assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"data"
