"""Stacks of CloudFormation: made, changed, removed, and waited for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import botocore.exceptions as sdk

from backends.aws.clients import Clients
from backends.aws.deploy.templates import TAG, TEMPLATES
from backends.aws.errors import error_code, translate, unreachable
from fsdcore.clock import SYSTEM_CLOCK, Clock, Deadline
from fsdcore.errors import DeploymentError
from fsdcore.events import Observer

__all__ = ["Stack", "Stacks", "asking"]

Stack = dict[str, Any]

_TAKEN_BACK = "UPDATE_ROLLBACK_COMPLETE"
_USABLE = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", _TAKEN_BACK})
# It could not be made, and can only be removed.
_STILLBORN = frozenset({"CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"})
_LARGEST_INLINE = 51_200
_SHORTEST_PAUSE, _LONGEST_PAUSE, _GROWTH = 0.1, 3.0, 1.5
_WAIT_SECONDS = 1_800.0


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
        return self._ended([stack])[stack] in _USABLE

    def apply(self, templates: Mapping[str, Mapping[str, Any]], observer: Observer) -> None:
        """Bring the stacks to their templates, all at once, and wait; those that fit already are left alone."""
        self._settle(templates)
        bodies = {name: json.dumps(template, separators=(",", ":")) for name, template in templates.items()}
        started = {name for name, body in bodies.items() if self._start(name, body)}
        for name, state in self._ended(templates, observer).items():
            if state not in _USABLE or (state == _TAKEN_BACK and name in started):
                raise DeploymentError(f"stack {name} could not be made, it is {state}: {self._reason(name)}")

    def _settle(self, names: Collection[str]) -> None:
        """Wait for what an earlier deploy began, and clear away what it could not make."""
        states = self._ended(names)
        stillborn = [name for name, state in states.items() if state in _STILLBORN]
        self.delete(stillborn)
        for name, state in self._ended(stillborn).items():
            if state is not None:
                raise DeploymentError(f"stack {name} failed and cannot be removed, it is {state}; {self._reason(name)}")

    def _start(self, stack: str, body: str) -> bool:
        """Begin to make or change a stack; False if it fits already."""
        there = self.find(stack) is not None
        service = self._service
        request: dict[str, Any] = {"StackName": stack, "Capabilities": ["CAPABILITY_NAMED_IAM"], **self._body(body)}
        request["Tags"] = [{"Key": TAG, "Value": self._name}]
        with asking(self._clients, f"{'changing' if there else 'making'} stack {stack}"):
            try:
                if there:
                    service.update_stack(**request)
                else:
                    service.create_stack(**request)
            except sdk.ClientError as error:
                if "No updates are to be performed" not in str(error):
                    raise
                return False
        return True

    def _body(self, body: str) -> dict[str, str]:
        """The template as part of the request, or where it lies if it is too long for that."""
        if len(body) <= _LARGEST_INLINE:
            return {"TemplateBody": body}
        key = f"{TEMPLATES}{hashlib.sha256(body.encode()).hexdigest()}.json"
        s3 = self._clients.client("s3")
        with asking(self._clients, "uploading a template"):
            s3.put_object(Bucket=self._bucket, Key=key, Body=body.encode())
        return {"TemplateURL": f"{s3.meta.endpoint_url}/{self._bucket}/{key}"}

    def delete(self, names: Collection[str]) -> None:
        """Begin to remove stacks; one that is not there is no error."""
        for name in names:
            with asking(self._clients, f"removing stack {name}"):
                self._service.delete_stack(StackName=name)

    def removed(self, names: Collection[str], observer: Observer) -> dict[str, str]:
        """Remove stacks and wait; those that could not be, with the reason."""
        self.delete(names)
        states = self._ended(names, observer)
        return {name: self._reason(name) for name, state in states.items() if state is not None}

    def _ended(self, names: Collection[str], observer: Observer | None = None) -> dict[str, str | None]:
        """The state that each stack comes to rest in; None if it is gone."""
        states: dict[str, str | None] = {}
        deadline, pause = Deadline.after(_WAIT_SECONDS, self._clock), _SHORTEST_PAUSE
        while True:
            for name in names:
                if name not in states and not (state := self._state(name)).endswith("IN_PROGRESS"):
                    states[name] = state or None
            if observer and names:
                observer.progress("stacks", len(states), len(names))
            if len(states) == len(names):
                return states
            if deadline.passed():
                waiting = ", ".join(sorted(set(names) - set(states)))
                raise DeploymentError(f"still not done after {_WAIT_SECONDS:.0f} s: {waiting}; run the command again")
            self._clock.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * _GROWTH)

    def _state(self, name: str) -> str:
        """The state, empty if there is no such stack."""
        found = self.find(name)
        state = str(found["StackStatus"]) if found else ""
        # Nothing is under way there, for all its name.
        return "CREATE_FAILED" if state == "REVIEW_IN_PROGRESS" else state

    def _reason(self, name: str) -> str:
        """What went wrong first, as the events of the stack's latest operation tell."""
        with asking(self._clients, f"reading the events of stack {name}"):
            events = self._service.describe_events(StackName=name, Filters={"FailedEvents": True})["OperationEvents"]
        latest = [event for event in events if event.get("OperationId") == events[0].get("OperationId")]
        told = [(event, reason) for event in reversed(latest) if (reason := _failure(event))]
        # What is found before anything is made is told by events of its own.
        told.sort(key=lambda pair: "ValidationStatus" not in pair[0])
        return f"{told[0][0].get('LogicalResourceId')}: {told[0][1]}" if told else "no reason was given"


def _failure(event: dict[str, Any]) -> str:
    """Why a resource failed; empty for an event that tells of something else."""
    failed = event.get("ValidationStatus") == "FAILED" or str(event.get("ResourceStatus", "")).endswith("_FAILED")
    reason = " ".join(str(event.get("ValidationStatusReason") or event.get("ResourceStatusReason") or "").split())
    return reason if failed and "cancelled" not in reason else ""
