"""Stacks of CloudFormation: made, changed, removed, and waited for."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import botocore.exceptions as sdk

from fsd_aws.clients import Clients
from fsd_aws.deploy.templates import TAG, TEMPLATES
from fsd_aws.errors import error_code, translate, unreachable
from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.errors import DeploymentError
from fsdcore.record.observer import Observer, notice

Stack = dict[str, Any]

_TAKEN_BACK = "UPDATE_ROLLBACK_COMPLETE"
_USABLE = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", _TAKEN_BACK})
# It could not be made, and can only be removed.
_STILLBORN = frozenset({"CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"})
_LARGEST_INLINE = 51_200
# More at once would meet the rates of what CloudFormation calls: it lists a topic's subscriptions without a retry.
_AT_ONCE = 4
_SHORTEST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.1, 3.0, 1.5
_WAIT_SECONDS = 1_800.0
# After an operation was begun, a look may for some seconds still tell of what was before it.
_STALE_SECONDS = 60.0
# What passes by itself: a name is not free for a minute after its queue was removed, a bucket's while it is.
_NAME_TAKEN = ("wait 60 seconds after deleting a queue", "QueueDeletedRecently", "OperationAborted")
_NAME_SECONDS, _NAME_TRIES = 65.0, 4


@contextmanager
def asking(clients: Clients, doing: str) -> Iterator[None]:
    """Run the block with the errors of the SDK translated; `ConfigError` where the region has no such service."""
    try:
        yield
    except sdk.EndpointConnectionError as error:
        raise unreachable(error, doing, clients.region) from error
    except (sdk.BotoCoreError, sdk.ClientError) as error:
        raise translate(error, doing, DeploymentError) from error


class Stacks:
    """The stacks of the deployment `name`. Large templates lie in `bucket` on their way."""

    def __init__(self, clients: Clients, name: str, bucket: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clients, self._name, self._bucket, self._clock = clients, name, bucket, clock

    @property
    def _service(self) -> Any:
        return self._clients.client("cloudformation")

    def find(self, stack: str) -> Stack | None:
        """What CloudFormation says of a stack; None if there is none."""
        with asking(self._clients, f"looking at stack {stack}"):
            try:
                found: Stack = self._service.describe_stacks(StackName=stack)["Stacks"][0]
            except sdk.ClientError as error:
                if error_code(error) == "ValidationError" and "does not exist" in str(error):
                    return None
                raise
        return None if found["StackStatus"] == "DELETE_COMPLETE" else found

    def all(self) -> dict[str, Stack]:
        """All stacks that bear the deployment's tag, by name."""
        with asking(self._clients, "looking for stacks"):
            pages = list(self._service.get_paginator("describe_stacks").paginate())
        found = [stack for page in pages for stack in page["Stacks"] if stack["StackStatus"] != "DELETE_COMPLETE"]
        mine = {"Key": TAG, "Value": self._name}
        return {stack["StackName"]: stack for stack in found if mine in stack.get("Tags", [])}

    def usable(self, stack: str) -> bool:
        """Whether a stack is there and can be changed, once what is under way with it has ended."""
        return self._rested([stack])[stack] in _USABLE

    def apply(self, templates: Mapping[str, Mapping[str, Any]], observer: Observer) -> None:
        """Bring the stacks to their templates and wait, a few at once; those that fit already are left alone."""
        bodies = {name: json.dumps(template, separators=(",", ":")) for name, template in templates.items()}
        for attempt in range(1, _NAME_TRIES + 1):
            failed = self._applied(bodies, observer)
            if not failed:
                return
            name, (state, reason) = next(iter(failed.items()))
            taken = all(any(sign in reason for sign in _NAME_TAKEN) for _, reason in failed.values())
            if not taken or attempt == _NAME_TRIES:
                raise DeploymentError(f"stack {name} could not be made, it is {state}: {reason}")
            notice(observer, f"stack {name}: a name was given up a moment ago; trying again in {_NAME_SECONDS:.0f} s")
            self._clock.sleep(_NAME_SECONDS)

    def _applied(self, bodies: Mapping[str, str], observer: Observer) -> dict[str, tuple[str | None, str]]:
        """Those that could not be brought to their templates, with their state and the reason."""
        self._settle(bodies)
        operations: dict[str, _Operation] = {}

        def begin(name: str) -> _Operation:
            operations[name] = self._begin(name, bodies[name])
            return operations[name]

        ended = self._worked(bodies, begin, observer)
        wrong = {
            name: state
            for name, state in ended.items()
            if state not in _USABLE or (state == _TAKEN_BACK and operations[name].begun)
        }
        return {name: (state, self._reason(name)) for name, state in wrong.items()}

    def _settle(self, names: Collection[str]) -> None:
        """Wait for what an earlier deploy began, and clear away what it could not make."""
        states = self._rested(names)
        stillborn = [name for name, state in states.items() if state in _STILLBORN]
        for name, state in self._worked(stillborn, self._remove).items():
            if state is not None:
                raise DeploymentError(f"stack {name} failed and cannot be removed, it is {state}; {self._reason(name)}")

    def _begin(self, stack: str, body: str) -> _Operation:
        """Begin to make or change a stack, if it does not fit already."""
        before, (event, _), service = self.find(stack), self._latest_event(stack), self._service
        request: dict[str, Any] = {"StackName": stack, "Capabilities": ["CAPABILITY_NAMED_IAM"], **self._body(body)}
        request["Tags"] = [{"Key": TAG, "Value": self._name}]
        with asking(self._clients, f"{'changing' if before else 'making'} stack {stack}"):
            try:
                if before:
                    service.update_stack(**request)
                else:
                    service.create_stack(**request)
            except sdk.ClientError as error:
                if "No updates are to be performed" not in str(error):
                    raise
                return self._nothing()
        return self._begun(before, event)

    def _begun(self, before: Stack | None, event: str) -> _Operation:
        return _Operation(before, event, begun=True, trusted=Deadline.after(_STALE_SECONDS, self._clock))

    def _nothing(self) -> _Operation:
        return _Operation(None, "", begun=False, trusted=Deadline.after(0.0, self._clock))

    def _latest_event(self, stack: str) -> tuple[str, str]:
        """The id and the state of the latest event of the stack as a whole; empty where there is none to be had."""
        try:
            events = self._service.describe_stack_events(StackName=stack)["StackEvents"]
        except (sdk.BotoCoreError, sdk.ClientError):
            return "", ""
        whole = (event for event in events if event["ResourceType"] == "AWS::CloudFormation::Stack")
        return next(((str(event["EventId"]), str(event["ResourceStatus"])) for event in whole), ("", ""))

    def _told_ended(self, name: str, operation: _Operation, found: Stack | None) -> bool:
        """Whether an event that was not there before tells of the end that is seen."""
        event, state = self._latest_event(name)
        return event != operation.event and state == _state(found)

    def _body(self, body: str) -> dict[str, str]:
        """The template as part of the request, or where it lies if it is too long for that."""
        if len(body) <= _LARGEST_INLINE:
            return {"TemplateBody": body}
        key = f"{TEMPLATES}{hashlib.sha256(body.encode()).hexdigest()}.json"
        s3 = self._clients.client("s3")
        with asking(self._clients, "uploading a template"):
            s3.put_object(Bucket=self._bucket, Key=key, Body=body.encode())
        return {"TemplateURL": f"{s3.meta.endpoint_url}/{self._bucket}/{key}"}

    def removed(self, names: Collection[str], observer: Observer) -> dict[str, str]:
        """Remove stacks and wait, a few at once; those that could not be, with the reason."""
        states = self._worked(names, self._remove, observer)
        return {name: self._reason(name) for name, state in states.items() if state is not None}

    def _remove(self, stack: str) -> _Operation:
        """Begin to remove a stack; one that is not there is no error."""
        before, (event, _) = self.find(stack), self._latest_event(stack)
        if before is None:
            return self._nothing()
        with asking(self._clients, f"removing stack {stack}"):
            self._service.delete_stack(StackName=stack)
        return self._begun(before, event)

    def _rested(self, names: Collection[str]) -> dict[str, str | None]:
        """The state of each stack once nothing is under way with it; None if there is none."""
        return self._worked(names, lambda name: self._nothing())

    def _worked(
        self, names: Collection[str], begin: Callable[[str], _Operation], observer: Observer | None = None
    ) -> dict[str, str | None]:
        """Begin each stack's operation, a few at once, and the state that it comes to rest in; None if it is gone."""
        waiting, under_way = deque(names), dict[str, _Operation]()
        states: dict[str, str | None] = {}
        deadline, pause = Deadline.after(_WAIT_SECONDS, self._clock), _SHORTEST_PAUSE
        while True:
            for _ in range(min(len(waiting), _AT_ONCE - len(under_way))):
                name = waiting.popleft()
                under_way[name] = begin(name)
            for name, state in self._ended(under_way):
                states[name] = state
                del under_way[name]
                pause = _SHORTEST_PAUSE
            if observer and names:
                observer.progress("stacks", len(states), len(names))
            if len(states) == len(names):
                return states
            if deadline.passed():
                left = ", ".join(sorted({*waiting, *under_way}))
                raise DeploymentError(f"still not done after {_WAIT_SECONDS:.0f} s: {left}; run the command again")
            if len(under_way) == _AT_ONCE or not waiting:
                self._clock.sleep(pause)
                pause = min(_LONGEST_PAUSE, pause * _GROWTH)

    def _ended(self, under_way: Mapping[str, _Operation]) -> Iterator[tuple[str, str | None]]:
        """The stacks whose operations have ended, looked at one after the other, and their states."""
        for name, operation in list(under_way.items()):
            found = self.find(name)
            if operation.ended(found) or (operation.at_rest(found) and self._told_ended(name, operation, found)):
                yield name, _state(found)

    def _reason(self, name: str) -> str:
        """What went wrong first in the stack's latest operation, as its events tell."""
        told = self._told(name) or self._told_by_resources(name)
        return told or str((self.find(name) or {}).get("StackStatusReason") or "no reason was given")

    def _told(self, name: str) -> str:
        """By the events of operations, which tell also of what is found before anything is made.

        Empty where they are silent: they may not be asked for, or are not there in every partition.
        """
        try:
            events = self._service.describe_events(StackName=name, Filters={"FailedEvents": True})["OperationEvents"]
        except (sdk.BotoCoreError, sdk.ClientError):
            return ""
        latest = [event for event in events if event.get("OperationId") == events[0].get("OperationId")]
        failures = [(event, reason) for event in reversed(latest) if (reason := _failure(event))]
        failures.sort(key=lambda pair: "ValidationStatus" not in pair[0])
        return f"{failures[0][0].get('LogicalResourceId')}: {failures[0][1]}" if failures else ""

    def _told_by_resources(self, name: str) -> str:
        """By the events of resources, back to where the latest operation began."""
        try:
            events = self._service.describe_stack_events(StackName=name)["StackEvents"]
        except (sdk.BotoCoreError, sdk.ClientError):
            return ""
        told = ""
        for event in events:
            if event.get("ResourceStatusReason") == "User Initiated":
                break
            if reason := _failure(event):
                told = f"{event.get('LogicalResourceId')}: {reason}"
        return told


@dataclass
class _Operation:
    """What was begun with a stack, how it was `before`, and the id of its latest `event` then.

    Not `begun` if there is nothing to wait for of ours. Until `trusted`, a look that shows the stack as it was before
    is one from before.
    """

    before: Stack | None
    event: str
    begun: bool
    trusted: Deadline
    _seen: bool = False

    def ended(self, found: Stack | None) -> bool:
        """Whether a look tells of the operation's end."""
        if _state(found) and str(_state(found)).endswith("IN_PROGRESS"):
            self._seen = True
            return False
        return not self.begun or self._seen or _mark(found) != _mark(self.before) or self.trusted.passed()

    @staticmethod
    def at_rest(found: Stack | None) -> bool:
        """Whether a look shows a stack with which nothing is under way."""
        return found is not None and not str(_state(found)).endswith("IN_PROGRESS")


def _state(found: Stack | None) -> str | None:
    """The state, None if there is no such stack."""
    state = str(found["StackStatus"]) if found else None
    # Nothing is under way there, for all its name.
    return "CREATE_FAILED" if state == "REVIEW_IN_PROGRESS" else state


def _mark(found: Stack | None) -> tuple[Any, ...]:
    """What is another after each operation."""
    return tuple((found or {}).get(key) for key in ("StackId", "CreationTime", "LastUpdatedTime", "DeletionTime"))


def _failure(event: dict[str, Any]) -> str:
    """Why a resource failed; empty for an event that tells of something else."""
    failed = event.get("ValidationStatus") == "FAILED" or str(event.get("ResourceStatus", "")).endswith("_FAILED")
    reason = " ".join(str(event.get("ValidationStatusReason") or event.get("ResourceStatusReason") or "").split())
    return reason if failed and "cancelled" not in reason else ""
