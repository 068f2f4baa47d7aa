"""The backend as a whole: one clear line for each thing that is wrong, and what a worker's end tells."""

from __future__ import annotations

from contextlib import closing

import google.auth
import pytest
import requests
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, RefreshError

from fsd_emulators.gcp.functions import FunctionsServer
from fsd_gcp import GcpBackend, GcpSettings
from fsd_gcp.calls.errors import translation
from fsdcore.errors import (
    AccessDeniedError,
    ConfigError,
    CredentialsError,
    DeploymentError,
    DeploymentMissingError,
    InputError,
)


def test_without_credentials_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def default(**_: object) -> None:
        raise DefaultCredentialsError("Your default credentials were not found.")

    monkeypatch.setattr(google.auth, "default", default)
    login = pytest.raises(CredentialsError, match="gcloud auth application-default login")
    with closing(GcpBackend(GcpSettings(region="europe-west4"))) as backend, login as caught:
        backend.credentials()
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("region", "variable"), [("", "FSD_GCP_REGION"), ("europe-west4", "FSD_GCP_PROJECT")])
def test_without_a_region_or_a_project_the_setting_is_named(region: str, variable: str) -> None:
    settings = GcpSettings(region=region, functions_endpoint="http://127.0.0.1:1")
    with closing(GcpBackend(settings)) as backend, pytest.raises(ConfigError, match=variable):
        _ = backend.deployment


def test_a_missing_deployment_is_told(functions: FunctionsServer) -> None:
    settings = GcpSettings(name="none", project="some-project", region="europe-west4", functions_endpoint=functions.url)
    missing = pytest.raises(
        DeploymentMissingError, match=r"no deployment 'none' in europe-west4 of project some-project; run: fsd"
    )
    with closing(GcpBackend(settings)) as backend, missing:
        _ = backend.store


def test_limits_can_be_shown_without_a_deployment() -> None:
    with closing(GcpBackend(GcpSettings(lanes=3))) as backend:
        assert backend.channel_capabilities("queue").lanes == 3
        assert backend.channel_capabilities("object").lanes is None


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (exceptions.Unauthorized("no"), CredentialsError, "gcloud auth application-default login"),
        (RefreshError("expired"), CredentialsError, "gcloud auth application-default login"),
        (exceptions.Forbidden("you may not"), AccessDeniedError, "no permission: you may not"),
        (
            exceptions.Forbidden("Cloud Pub/Sub API (pubsub.googleapis.com) has not been used in project 1 before"),
            ConfigError,
            "gcloud services enable pubsub.googleapis.com",
        ),
        (
            exceptions.Forbidden(
                "GET https://cloudfunctions.googleapis.com/v2/f: Cloud Run Admin API has not been used in project 1 "
                "before or it is disabled. Enable it by visiting "
                "https://console.developers.google.com/apis/api/run.googleapis.com/overview?project=1 then retry."
            ),
            ConfigError,
            "the API run.googleapis.com is not enabled",
        ),
        (
            exceptions.InvalidArgument(
                "Could not create Cloud Run service. Quota violated:\nCpuAllocPerProjectRegion requested: 200000 "
                "allowed: 56000"
            ),
            ConfigError,
            "quota of the project is too small: Could not create Cloud Run service. Quota violated: CpuAlloc",
        ),
        (exceptions.TooManyRequests("Quota exceeded for quota metric"), ConfigError, "quota of the project"),
        (requests.ConnectionError("refused"), DeploymentError, "asking: the service cannot be reached: refused"),
        (
            exceptions.RetryError("Timeout of 120.0s exceeded", cause=requests.ConnectionError("refused")),
            DeploymentError,
            "asking: Timeout of 120.0s exceeded: refused",
        ),
        (exceptions.InternalServerError("oops"), DeploymentError, "asking: oops"),
    ],
)
def test_what_google_says_becomes_one_line(error: Exception, kind: type[Exception], text: str) -> None:
    told = translation(error, "asking")
    assert isinstance(told, kind)
    assert text in told.message
    assert "\n" not in told.message
