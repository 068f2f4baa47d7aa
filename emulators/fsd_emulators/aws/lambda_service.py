"""Lambda's invocations: environments cold and warm, the queue of asynchronous events, limits, retries."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fsd_emulators.aws.environment import Call, Environment, Outcome
from fsd_emulators.aws.functions import Function, Functions
from fsd_emulators.aws.ministack import Ministack
from fsd_emulators.aws.records import EnvironmentRecord, InvocationRecord
from fsd_emulators.aws.refusals import Refusal
from fsd_emulators.aws.runtime import Credentials, make_runtime

SYNC_BYTES, ASYNC_BYTES = 6_291_456, 1_048_576
_TAIL_BYTES = 4_096
_MOST_RECORDS = 200_000


class LambdaService:
    """Runs functions that `functions` knows; `endpoint` is the address that they get for all of AWS.

    `concurrency` is how many may run at once, as an account's limit; `retry_seconds` the pause before the first retry
    of an asynchronous event, which doubles (Lambda: a minute). With `assume_roles` an environment has the credentials
    of its function's role instead of the owner's.
    """

    def __init__(
        self,
        ministack: Ministack,
        folder: Path,
        endpoint: str,
        *,
        concurrency: int,
        retry_seconds: float,
        assume_roles: bool,
    ) -> None:
        self.functions = Functions(ministack, folder / "code")
        self.records: deque[InvocationRecord] = deque(maxlen=_MOST_RECORDS)
        self._ministack, self._folder, self._endpoint = ministack, folder, endpoint
        self._concurrency, self._retry_seconds = concurrency, retry_seconds
        self._assume_roles = assume_roles
        self._runtime = make_runtime(folder / "runtime")
        (folder / "code").mkdir()
        self._idle: defaultdict[tuple[str, str], list[Environment]] = defaultdict(list)
        self._busy: dict[Environment, None] = {}
        self._by_token: dict[str, Environment] = {}
        self._claimed: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._freed = asyncio.Condition()
        self._events: set[asyncio.Task[None]] = set()

    async def invoke(self, region: str, name: str, kind: str, event: bytes, tail: bool) -> tuple[dict[str, str], bytes]:
        """Headers and payload of the answer, whose status is 200, 202 or 204 by `kind`; `Refusal` if refused."""
        asynchronous = kind == "Event"
        limit = ASYNC_BYTES if asynchronous else SYNC_BYTES
        if len(event) > limit:
            message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
            raise Refusal("RequestTooLargeException", message, 413)
        event = event or b"{}"
        _check_json(event)
        function = await self.functions.get(region, name)
        call = Call(event)
        headers = {"X-Amzn-RequestId": call.request_id, "X-Amz-Executed-Version": "$LATEST"}
        if kind == "DryRun":
            return headers, b""
        if asynchronous:
            self._spawn(self._deliver(function, event, call.request_id))
            return headers, b""
        # The function runs on if the client leaves.
        outcome = await asyncio.shield(asyncio.create_task(self._attempt(function, call, asynchronous=False)))
        if outcome.ending != "success":
            headers["X-Amz-Function-Error"] = "Unhandled"
        if tail:
            headers["X-Amz-Log-Result"] = base64.b64encode(outcome.log[-_TAIL_BYTES:]).decode()
        return headers, outcome.payload

    def environments(self) -> list[EnvironmentRecord]:
        """Those that are there, busy ones first."""
        return [_record(environment) for environment in self._everyone()]

    def source(self, token: str) -> str:
        """The name of the environment that holds these credentials; empty if none does."""
        environment = self._by_token.get(token)
        return environment.name if environment is not None else ""

    def role(self, name: str) -> str | None:
        """The role of the environment of that name; None if there is none."""
        return next((known.function.role for known in self._everyone() if known.name == name), None)

    def kill(self, name: str) -> bool:
        """Kill the environment; whether there was one."""
        found = next((environment for environment in self._everyone() if environment.name == name), None)
        if found is not None:
            found.kill()
        return found is not None

    @property
    def pending(self) -> int:
        """Asynchronous events that have not ended."""
        return len(self._events)

    async def reset(self) -> None:
        """Drop all events and end all environments."""
        events = list(self._events)
        for event in events:
            event.cancel()
        await asyncio.gather(*events, return_exceptions=True)
        everyone = self._everyone()
        self._idle.clear()
        await asyncio.gather(*(environment.close() for environment in everyone))
        self.functions.forget()
        self.records.clear()
        self._by_token.clear()

    def _everyone(self) -> list[Environment]:
        return [*self._busy, *(environment for kept in self._idle.values() for environment in kept)]

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._events.add(task)
        task.add_done_callback(self._events.discard)

    async def _deliver(self, function: Function, event: bytes, request_id: str) -> None:
        """Run an asynchronous event, again where it fails, until its attempts or its time are over."""
        accepted = time.monotonic()
        for attempt in range(1, function.retries + 2):
            if attempt > 1:
                await asyncio.sleep(self._retry_seconds * 2 ** (attempt - 2))
            if not await self._free(function, accepted + function.event_seconds):
                await self._failed(function, event, request_id, attempt - 1, "EventAgeExceeded", None)
                return
            outcome = await self._attempt(function, Call(event, request_id), asynchronous=True, attempt=attempt)
            if outcome.ending == "success":
                return
        await self._failed(function, event, request_id, function.retries + 1, "RetriesExhausted", outcome)

    async def _free(self, function: Function, until: float) -> bool:
        """Claim a place once there is one; False if there is none until then."""
        async with self._freed:
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    await self._freed.wait_for(lambda: self._limit(function) is None)
            except TimeoutError:
                return False
            self._claimed[function.region, function.name] += 1
            return True

    def _limit(self, function: Function) -> str | None:
        """The limit that stands against one more environment at work."""
        if function.reserved is not None:
            taken = self._claimed[function.region, function.name]
            return "ReservedFunctionConcurrentInvocationLimitExceeded" if taken >= function.reserved else None
        over = sum(self._claimed.values()) >= self._concurrency
        return "ConcurrentInvocationLimitExceeded" if over else None

    async def _attempt(self, function: Function, call: Call, *, asynchronous: bool, attempt: int = 1) -> Outcome:
        if not asynchronous:
            reason = self._limit(function)
            if reason is not None:
                raise Refusal("TooManyRequestsException", "Rate Exceeded.", 429, Reason=reason)
            self._claimed[function.region, function.name] += 1
        try:
            return await self._run(function, call, asynchronous, attempt)
        finally:
            self._claimed[function.region, function.name] -= 1
            async with self._freed:
                self._freed.notify_all()

    async def _run(self, function: Function, call: Call, asynchronous: bool, attempt: int) -> Outcome:
        environment = await self._environment(function)
        started = time.time()
        try:
            outcome = await environment.run(call)
        finally:
            self._busy.pop(environment, None)
        self.records.append(
            InvocationRecord(
                function=function.name,
                request_id=call.request_id,
                asynchronous=asynchronous,
                attempt=attempt,
                environment=environment.name,
                cold=outcome.cold,
                started=started,
                init_ms=outcome.init_ms,
                duration_ms=outcome.duration_ms,
                billed_ms=outcome.billed_ms,
                memory_mb=function.memory,
                most_memory_mb=outcome.most_memory_mb,
                outcome=outcome.ending,
                error=outcome.error,
            )
        )
        if environment.alive:
            self._idle[function.region, function.name].append(environment)
        else:
            await environment.close()
        return outcome

    async def _environment(self, function: Function) -> Environment:
        """A warm one of this revision, the last used first, or a new one; it is busy from here on."""
        kept = self._idle[function.region, function.name]
        while kept:
            environment = kept.pop()
            if environment.alive and environment.function.revision == function.revision:
                self._busy[environment] = None
                return environment
            await environment.close()
        environment = Environment(
            function, self._folder / "environments", self._folder / "logs", self._endpoint, self._runtime
        )
        self._busy[environment] = None
        credentials = await self._credentials(function, environment)
        self._by_token[credentials["AWS_SESSION_TOKEN"]] = environment
        await environment.start(credentials)
        return environment

    async def _credentials(self, function: Function, environment: Environment) -> Credentials:
        """What the environment signs with; its session token names it in the log of requests."""
        if not self._assume_roles:
            return Credentials.of(token=environment.name)
        asked = {"Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": function.role}
        body = urlencode({**asked, "RoleSessionName": function.name}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        answer = await self._ministack.call("sts", "POST", "/", body, headers, function.region)
        if answer.status != 200:
            raise Refusal("InvalidParameterValueException", "The role defined for the function cannot be assumed.")
        return _assumed(answer.body.decode())

    async def _failed(
        self, function: Function, event: bytes, request_id: str, attempts: int, condition: str, outcome: Outcome | None
    ) -> None:
        """Tell the function's destination and its dead-letter queue of an event that is given up."""
        error = outcome.payload.decode("utf-8", "replace") if outcome is not None else ""
        if function.destination:
            record = {
                "version": "1.0",
                "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "requestContext": {
                    "requestId": request_id,
                    "functionArn": f"{function.arn}:$LATEST",
                    "condition": condition,
                    "approximateInvokeCount": attempts,
                },
                "requestPayload": json.loads(event),
                "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
                "responsePayload": json.loads(error or "null"),
            }
            await self._send(function, function.destination, json.dumps(record))
        if function.dead_letters:
            await self._send(function, function.dead_letters, event.decode())

    async def _send(self, function: Function, arn: str, text: str) -> None:
        """One message to a queue or a topic."""
        _, _, service, region, account, name = arn.split(":", 5)
        if service == "sqs":
            url = f"{self._ministack.url}/{account}/{name}"
            body = json.dumps({"QueueUrl": url, "MessageBody": text}).encode()
            headers = {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"}
        else:
            body = urlencode({"Action": "Publish", "Version": "2010-03-31", "TopicArn": arn, "Message": text}).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
        await self._ministack.call(service, "POST", "/", body, headers, region)


def _check_json(event: bytes) -> None:
    try:
        json.loads(event)
    except ValueError as error:
        message = f"Could not parse request body into json: {error}"
        raise Refusal("InvalidRequestContentException", message) from error


def _record(environment: Environment) -> EnvironmentRecord:
    call = environment.call
    return EnvironmentRecord(
        name=environment.name,
        function=environment.function.name,
        pid=environment.pid,
        request_id=call.request_id if call is not None else "",
        event=call.event.decode("utf-8", "replace") if call is not None else "",
    )


def _assumed(text: str) -> Credentials:
    """The credentials in an answer of STS."""
    found = {name: text.partition(f"<{name}>")[2].partition(f"</{name}>")[0] for name in _CREDENTIALS}
    return Credentials.of(*(found[name] for name in _CREDENTIALS))


_CREDENTIALS = ("AccessKeyId", "SecretAccessKey", "SessionToken")
