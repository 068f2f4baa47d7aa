"""Clients that answer what a test says, for answers that no server here gives."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.stub import Stubber

from fsd_aws.clients import Clients
from fsd_aws.deployment import Deployment
from fsd_aws.settings import AwsSettings


def make_deployment(workers: int = 4, **settings: Any) -> Deployment:
    """A deployment that is nowhere."""
    return Deployment.of(
        AwsSettings(**settings), region="eu-west-1", partition="aws", account="123456789012", workers=workers
    )


class StubbedClients(Clients):
    """Each request must be the next one foretold, by `answers` or `fails`."""

    def __init__(self) -> None:
        super().__init__("eu-west-1")
        self._session = boto3.Session("key", "secret", region_name="eu-west-1")
        self._stubbers: dict[str, Stubber] = {}

    def client(self, service: str) -> Any:
        client = super().client(service)
        if service not in self._stubbers:
            self._stubbers[service] = Stubber(client)
            self._stubbers[service].activate()
        return client

    def answers(self, service: str, operation: str, answer: dict[str, Any], **expected: Any) -> None:
        """The next request is `operation`, with exactly the parameters `expected` if any are given."""
        self.client(service)
        self._stubbers[service].add_response(operation, answer, expected or None)

    def fails(self, service: str, operation: str, code: str, status: int = 400, repeated: int = 0) -> None:
        """The next request is refused with `code`, after the SDK has sent it again so many times."""
        self.client(service)
        self._stubbers[service].add_client_error(
            operation, code, f"text of {code}", status, response_meta={"RetryAttempts": repeated}
        )

    def forget(self, service: str) -> None:
        """What was foretold of a service and not asked need not be."""
        self._stubbers.pop(service).deactivate()

    def check(self) -> None:
        """All that was foretold has been asked."""
        for stubber in self._stubbers.values():
            stubber.assert_no_pending_responses()
