"""Whole runs by the real package, where a worker may do what its role says and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from fsd_aws import AwsBackend, AwsSettings
from fsd_aws.deploy import policies, templates
from fsd_aws.deploy.policies import worker_policy
from fsd_aws.deployment import Deployment
from fsd_emulators.aws import LocalAws
from fsdcore.client.session import Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import FsdError
from fsdcore.network.verify import verify
from fsdcore.testing import random_inputs, random_network

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = AwsSettings(name="least", topics=2, memory_mb=1_024, timeout_seconds=120)
NETWORK = random_network((20, 24, 18, 10))
INPUTS = random_inputs(17, 20)


def local_policy(deployment: Deployment) -> dict[str, Any]:
    """The policy of the role, with what local AWS wants besides.

    AWS has no permissions of batches, those of single messages cover them.
    """
    batches = ["sns:PublishBatch", "sqs:SendMessageBatch", "sqs:DeleteMessageBatch", "sqs:ChangeMessageVisibilityBatch"]
    parts = [deployment.arn(service, deployment.part_name("*")) for service in ("sns", "sqs")]
    extra = {"Effect": "Allow", "Action": batches, "Resource": parts}
    policy = worker_policy(deployment)
    return {**policy, "Statement": [*policy["Statement"], extra]}


def no_rule(action: str, resources: list[str]) -> dict[str, Any]:
    """In place of the rule that asks for TLS, which local AWS does not speak: one for nobody."""
    nobody = {"AWS": "arn:aws:iam::000000000000:user/nobody"}
    return {"Effect": "Deny", "Principal": nobody, "Action": action, "Resource": resources}


@pytest.fixture
def strict(strict_aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local AWS that keeps to the role, with the two things that AWS itself would not ask for."""
    monkeypatch.setattr(templates, "worker_policy", local_policy)
    monkeypatch.setattr(templates, "_tls_only", no_rule)


def run(backend: AwsBackend, channel: str, workers: int, seconds: float = 60.0) -> Any:
    settings = RunSettings(channel=channel, workers=workers, method="block", run_seconds=seconds)
    return Session(backend, settings).load(NETWORK).run(INPUTS).outputs


@pytest.mark.usefixtures("strict")
def test_the_role_is_enough_for_every_channel() -> None:
    backend = AwsBackend(SETTINGS)
    backend.provisioner().deploy(3)
    for channel, workers in (("queue", 3), ("sqs", 3), ("object", 3), ("queue", 1)):
        assert verify(NETWORK, INPUTS, run(backend, channel, workers)).right
    assert backend.provisioner().destroy().left == ()
    backend.close()


@pytest.mark.usefixtures("strict")
def test_a_permission_less_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {call: action for call, action in policies.WORKER_CALLS.items() if action != "sqs:ReceiveMessage"}
    monkeypatch.setattr(policies, "WORKER_CALLS", calls)
    backend = AwsBackend(SETTINGS)
    backend.provisioner().deploy(3)
    with pytest.raises(FsdError, match="ReceiveMessage"):
        run(backend, "queue", 3)
    backend.close()


@pytest.mark.usefixtures("strict")
def test_a_role_that_has_no_rights_yet_is_waited_for(strict_aws: LocalAws) -> None:
    backend = AwsBackend(SETTINGS)
    strict_aws.set_lateness(roles=20.0)
    backend.provisioner().deploy(3)
    assert verify(NETWORK, INPUTS, run(backend, "object", 3)).right
    backend.close()
