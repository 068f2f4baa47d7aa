"""The one endpoint of local AWS: Lambda's invocations are answered here, everything else by ministack behind it.

Every request is logged; limits that ministack does not keep are kept here; faults are made here.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp
import aiohttp.web

from fsd_emulators.aws import limits
from fsd_emulators.aws.actions import Action, classify, needs_body, service_of
from fsd_emulators.aws.batches import entries_of, is_batch, with_failed, without
from fsd_emulators.aws.lambda_service import LambdaService
from fsd_emulators.aws.lateness import Lateness
from fsd_emulators.aws.ministack import Ministack
from fsd_emulators.aws.records import RequestRecord
from fsd_emulators.aws.refusals import Refusal, refusal_answer
from fsd_emulators.web import HOP_HEADERS, OWN_HEADERS, cut_off, forward, kept_headers, whole_body
from fsdcore.faults import Crash, Delay, Disconnect, Duplicate, Fault, Faults, InPart, Refuse

_MOST_RECORDS = 500_000
_STATUS = {"RequestResponse": 200, "Event": 202, "DryRun": 204}
_READS = ("Describe", "Get", "List", "Validate")
_SENDS = ("Publish", "PublishBatch", "SendMessage", "SendMessageBatch")
_THROTTLED = "ThrottlingException"
_TOPIC_BYTES = re.compile(r"<key>MaximumMessageSize</key>\s*<value>(\d+)</value>")


@dataclass
class _Work:
    """One request under way."""

    request: aiohttp.web.BaseRequest
    action: Action
    body: bytes | None
    source: str
    fault: Fault | None = None
    began: float = field(default_factory=time.time)
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def blames(self) -> bool:
        """Whether entries that are made to fail are said to be the sender's fault."""
        return isinstance(self.fault, InPart) and self.fault.blames_sender

    @property
    def buffered(self) -> bytes:
        return self.body or b""


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


class _StackAnswers:
    """What CloudFormation told of stacks: for some seconds after an operation began it tells the same."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._before: dict[str, _Reply] = {}
        self._until: dict[str, float] = {}

    def stale(self, action: Action) -> _Reply | None:
        """What was told of the stack before; None if what is so now is to be told."""
        name = str(action.parameters.get("StackName", ""))
        if action.name != "DescribeStacks" or time.monotonic() >= self._until.get(name, 0.0):
            return None
        return self._before.get(name)

    def note(self, action: Action, reply: _Reply) -> None:
        if action.service != "cloudformation" or not self.seconds:
            return
        name = str(action.parameters.get("StackName", ""))
        if action.name == "DescribeStacks":
            self._before[name] = reply
        elif action.name in ("CreateStack", "UpdateStack", "DeleteStack") and reply.status == 200:
            self._until[name] = time.monotonic() + self.seconds


class Front:
    """Answers requests; `records` is the log of them, `faults` the rules that stand."""

    def __init__(self, ministack: Ministack, functions: LambdaService) -> None:
        self.records: deque[RequestRecord] = deque(maxlen=_MOST_RECORDS)
        self.faults = Faults(Crash, Delay, Disconnect, Duplicate, InPart, Refuse)
        self._ministack, self._lambda = ministack, functions
        self._stacks = _StackAnswers()
        self._number = 0

    async def answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        """The handler of every request but those of the control address."""
        await _send_continue(request)
        work = await self._read(request)
        try:
            return await self._answer(work)
        except asyncio.CancelledError:
            self._log(work, 0, 0)
            raise
        except Refusal as refusal:
            return self._reply(work, _refused(work.action.service, refusal))
        except aiohttp.ClientError as error:
            absent = Refusal("ServiceUnavailable", f"ministack does not answer: {error}", 503)
            return self._reply(work, _refused(work.action.service, absent))

    def reset(self) -> None:
        """Forget the log and all faults."""
        self.records.clear()
        self.faults.set()
        self._stacks.seconds = 0.0

    def set_lateness(self, lateness: Lateness) -> None:
        """Make what AWS does after a while take so long."""
        self._stacks.seconds = lateness.stacks
        self._ministack.set_lateness(lateness)

    async def _read(self, request: aiohttp.web.BaseRequest) -> _Work:
        service, region = service_of(request.headers, request.raw_path)
        body = await whole_body(request) if needs_body(service) else None
        action = classify(service, region, request.method, request.raw_path, request.headers, body or b"")
        source = self._lambda.source(request.headers.get("X-Amz-Security-Token", ""))
        name, caller = f"{service}:{action.name}", "worker" if source else "client"
        work = _Work(request, action, body, source, self.faults.meet(Fault, name, action.resource, caller))
        if work.fault is not None and work.body is None:
            work.body = await whole_body(request)
        return work

    async def _answer(self, work: _Work) -> aiohttp.web.StreamResponse:
        if work.fault is not None:
            cut = await self._make_fault(work, work.fault)
            if cut is not None:
                return cut
        await self._guard(work)
        if work.body is None:
            return await self._stream(work)
        reply = await self._served(work)
        if isinstance(work.fault, Duplicate):
            reply = await self._served(work)
        if isinstance(work.fault, Disconnect):
            return self._cut(work, reply.status)
        return self._reply(work, reply)

    async def _make_fault(self, work: _Work, fault: Fault) -> aiohttp.web.StreamResponse | None:
        """What a fault does before the request is served; an answer if it is not to be served at all."""
        if isinstance(fault, Refuse):
            raise Refusal(fault.error or _THROTTLED, "made to fail", fault.status or 400)
        if isinstance(fault, Crash):
            self._lambda.kill(work.source)
        if isinstance(fault, Crash) or (isinstance(fault, Disconnect) and fault.when == "before"):
            return self._cut(work, 0)
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        if isinstance(fault, InPart):
            ids = [entry.id for entry in entries_of(work.action)][::2]
            work.refused |= dict.fromkeys(ids, (fault.error or _THROTTLED, "made to fail"))
        return None

    async def _guard(self, work: _Work) -> None:
        action = work.action
        topic_bytes = limits.MESSAGE_BYTES
        if action.service == "sns" and sum(entry.billed_bytes for entry in entries_of(action)) > topic_bytes:
            topic_bytes = await self._topic_bytes(action)
        limits.check(action, topic_bytes)
        work.refused |= limits.bad_entries(action)

    async def _topic_bytes(self, action: Action) -> int:
        """The most that a publish to the topic may carry."""
        asked = {"Action": "GetTopicAttributes", "Version": "2010-03-31", "TopicArn": action.resource}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._ministack.call("sns", "POST", "/", urlencode(asked).encode(), headers, action.region)
        found = _TOPIC_BYTES.search(answer.body.decode())
        return int(found[1]) if found else limits.MESSAGE_BYTES

    async def _served(self, work: _Work) -> _Reply:
        """The whole answer, of Lambda here or of ministack."""
        action = work.action
        if (action.service, action.name) == ("lambda", "Invoke"):
            return await self._invoke(work)
        if (stale := self._stacks.stale(action)) is not None:
            return stale
        if not work.refused:
            reply = await self._forward(work, work.buffered)
            self._stacks.note(action, reply)
        elif len(work.refused) == len(entries_of(action)):
            kind = "text/xml" if action.service == "sns" else "application/x-amz-json-1.0"
            reply = _Reply(200, {"Content-Type": kind}, with_failed(action, b"", work.refused, work.blames))
        else:
            reply = await self._forward(work, without(action, work.refused))
            if reply.status == 200:
                reply = _Reply(200, reply.headers, with_failed(action, reply.body, work.refused, work.blames))
        if action.service in ("lambda", "cloudformation") and not action.name.startswith(_READS):
            self._lambda.functions.forget()
        return reply

    async def _invoke(self, work: _Work) -> _Reply:
        headers = work.request.headers
        kind = headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if kind not in _STATUS:
            raise Refusal("InvalidParameterValueException", f"InvocationType must be one of {', '.join(_STATUS)}")
        qualifier = work.request.query.get("Qualifier", "$LATEST")
        if qualifier != "$LATEST":
            raise Refusal("ResourceNotFoundException", f"Function not found: {work.action.resource}:{qualifier}", 404)
        if self._ministack.enforces:
            await self._authorize(work)
        tail = headers.get("X-Amz-Log-Type") == "Tail" and kind == "RequestResponse"
        sent, body = await self._lambda.invoke(work.action.region, work.action.resource, kind, work.buffered, tail)
        return _Reply(_STATUS[kind], {"Content-Type": "application/json", **sent}, body)

    async def _authorize(self, work: _Work) -> None:
        """`Refusal` if the role of the environment that asks may not invoke; the owner may."""
        role, region = self._lambda.role(work.source), work.action.region
        if role is None:
            return
        function = await self._lambda.functions.get(region, work.action.resource)
        asked = {"Action": "SimulatePrincipalPolicy", "Version": "2010-05-08", "PolicySourceArn": role}
        asked |= {"ActionNames.member.1": "lambda:InvokeFunction", "ResourceArns.member.1": function.arn}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._ministack.call("iam", "POST", "/", urlencode(asked).encode(), headers, region)
        if b"<EvalDecision>allowed<" not in answer.body:
            message = f"{role} is not authorized to perform: lambda:InvokeFunction on resource: {function.arn}"
            raise Refusal("AccessDeniedException", message, 403)

    async def _forward(self, work: _Work, body: bytes) -> _Reply:
        async with forward(self._ministack.session, self._ministack.url, work.request, body) as answer:
            return _Reply(answer.status, kept_headers(answer.headers, OWN_HEADERS), await answer.read())

    async def _stream(self, work: _Work) -> aiohttp.web.StreamResponse:
        """An object on its way in or out, never held here in whole."""
        request = work.request
        data = request.content if request.body_exists else None
        async with forward(self._ministack.session, self._ministack.url, request, data) as answer:
            self._log(work, answer.status, answer.content_length or 0)
            headers = kept_headers(answer.headers, HOP_HEADERS | {"date", "server"})
            response = aiohttp.web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            if request.method != "HEAD":
                async for part in answer.content.iter_any():
                    await response.write(part)
            await response.write_eof()
            return response

    def _reply(self, work: _Work, reply: _Reply) -> aiohttp.web.StreamResponse:
        self._log(work, reply.status, len(reply.body), _received(work.action, reply))
        body = None if work.request.method == "HEAD" or reply.status == 204 else reply.body
        return aiohttp.web.Response(status=reply.status, headers=reply.headers, body=body)

    def _cut(self, work: _Work, status: int) -> aiohttp.web.StreamResponse:
        """End the connection without an answer."""
        self._log(work, status, 0)
        return cut_off(work.request)

    def _log(self, work: _Work, status: int, sent: int, received: int = 0) -> None:
        action = work.action
        entries = entries_of(action) if is_batch(action) or action.name in _SENDS else []
        self._number += 1
        self.records.append(
            RequestRecord(
                number=self._number,
                time=work.began,
                service=action.service,
                action=action.name,
                resource=action.resource,
                status=status,
                source=work.source,
                request_bytes=work.request.content_length or len(work.buffered),
                response_bytes=sent,
                entries=received or len(entries),
                billed_bytes=sum(entry.billed_bytes for entry in entries) if action.name in _SENDS else 0,
                fault=type(work.fault).__name__ if work.fault is not None else "",
            )
        )


def _refused(service: str, refusal: Refusal) -> _Reply:
    headers, body = refusal_answer(service, refusal)
    return _Reply(refusal.status, headers, body)


def _received(action: Action, reply: _Reply) -> int:
    """How many messages a receive brought."""
    if action.name != "ReceiveMessage" or reply.status != 200:
        return 0
    return len(json.loads(reply.body or b"{}").get("Messages") or ())


async def _send_continue(request: aiohttp.web.BaseRequest) -> None:
    """Tell a client to send its body if it waits for that; the SDK would wait a second for each object."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Nothing of the answer is written yet.
        request.writer.output_size = 0
