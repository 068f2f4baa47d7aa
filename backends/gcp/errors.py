"""Errors of Google's libraries as those of the framework: the one place where they are translated."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import google.auth.exceptions
import requests
from google.api_core import exceptions

from backends.gcp.direct import NothingListensError
from fsdcore.errors import (
    AccessDeniedError,
    ChannelError,
    ConfigError,
    CredentialsError,
    DeploymentError,
    DeploymentMissingError,
    FsdError,
    StoreError,
)
from fsdcore.text import without_secrets

__all__ = [
    "BucketMissingError",
    "ProjectDeniedError",
    "TopicMissingError",
    "one_line",
    "project_checked",
    "translated",
    "translation",
]

_LOGIN = "run: gcloud auth application-default login"
# In what is said of an API that is not enabled: the address of the page that enables it, or else the first name.
_SERVICES = (re.compile(r"apis/api/([a-z]+\.googleapis\.com)"), re.compile(r"([a-z]+\.googleapis\.com)"))
_LONGEST = 300


class BucketMissingError(StoreError, DeploymentMissingError):
    """The bucket of the deployment is gone."""


class TopicMissingError(ChannelError, DeploymentMissingError):
    """A topic or subscription of the deployment is gone."""


class ProjectDeniedError(AccessDeniedError, ConfigError):
    """There is no such project, or these credentials may not use it: the services do not say which."""


def one_line(error: BaseException) -> str:
    """What an error says, on one line of sensible length."""
    said = getattr(error, "message", "") or str(error) or type(error).__name__
    text = without_secrets(" ".join(said.split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_disabled(text: str) -> bool:
    return "SERVICE_DISABLED" in text or "has not been used in project" in text or "it is disabled" in text


def _quota(error: Exception) -> bool:
    if isinstance(error, exceptions.TooManyRequests):
        return "quota" in str(error).lower()
    # What the making of a function ends with.
    return isinstance(error, exceptions.GoogleAPICallError) and "quota violated" in str(error).lower()


def translation(error: Exception, what: str, kind: type[FsdError] = DeploymentError) -> FsdError:
    """The framework's error for `error`, which came of doing `what`; `kind` where no other fits."""
    text = one_line(error)
    if isinstance(error, google.auth.exceptions.DefaultCredentialsError):
        return CredentialsError(f"{what}: there are no Google Cloud credentials{_lost_file()}; {_LOGIN}")
    if isinstance(error, exceptions.RetryError) and error.cause is not None:
        # Which says no more than how long it was tried.
        return kind(f"{what}: {one_line(error)}: {one_line(error.cause)}")
    if isinstance(error, NothingListensError):
        return kind(f"{what}: {error}")
    if isinstance(error, google.auth.exceptions.TransportError | requests.RequestException):
        return kind(f"{what}: the service cannot be reached: {text}")
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return CredentialsError(f"{what}: the credentials are not taken ({text}); {_LOGIN}")
    if isinstance(error, exceptions.Unauthorized):
        return CredentialsError(f"{what}: the credentials are not taken ({text}); {_LOGIN}")
    if isinstance(error, exceptions.Forbidden):
        return _forbidden(str(error), text, what)
    if _quota(error):
        return ConfigError(f"{what}: a quota of the project is too small: {text}")
    return kind(f"{what}: {text}")


def _lost_file() -> str:
    """Tells of the file that is named as the one with the credentials, which must be what is wrong."""
    name = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    return f" in {name}, which GOOGLE_APPLICATION_CREDENTIALS names" if name else ""


def _forbidden(full: str, text: str, what: str) -> FsdError:
    if _is_disabled(full):
        named = (pattern.search(full) for pattern in _SERVICES)
        name = next((found[1] for found in named if found), "SERVICE")
        return ConfigError(f"{what}: the API {name} is not enabled; run: gcloud services enable {name}")
    return AccessDeniedError(f"{what}: no permission: {text}")


@contextmanager
def translated(what: str, kind: type[FsdError] = DeploymentError) -> Iterator[None]:
    """Raise errors of Google's libraries from the block as the framework's."""
    try:
        yield
    except (exceptions.GoogleAPIError, google.auth.exceptions.GoogleAuthError, requests.RequestException) as error:
        raise translation(error, what, kind) from error


@contextmanager
def project_checked(what: str, project: str, kind: type[FsdError] = DeploymentError) -> Iterator[None]:
    """As `translated`, for what is asked first of a project: a refusal may mean that there is none of that name."""
    try:
        with translated(what, kind):
            yield
    except AccessDeniedError as error:
        if isinstance(error, CredentialsError) or not isinstance(error.__cause__, exceptions.Forbidden):
            raise
        text = one_line(error.__cause__)
        raise ProjectDeniedError(
            f"{what}: project {project!r} does not exist, or these credentials may not use it: {text}"
        ) from error.__cause__
