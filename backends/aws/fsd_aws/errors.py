"""What AWS and its SDK say went wrong, as the framework's errors: the one place where they are translated."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import botocore.exceptions as sdk

from fsdcore.clock import SYSTEM_CLOCK, Deadline
from fsdcore.errors import (
    AccessDeniedError,
    ChannelError,
    ConfigError,
    CredentialsError,
    FsdError,
    InputError,
    StoreError,
)
from fsdcore.loopback import absent, is_loopback, is_refused, silent
from fsdcore.text import without_secrets

# More was asked in a second than the account may.
THROTTLED = frozenset(
    {
        "KMS.ThrottlingException",
        "KMSThrottling",
        "KmsThrottled",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttled",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)

_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_NOT_ACCEPTED = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
DENIED = frozenset(
    {
        "403",
        "AccessDenied",
        "AccessDeniedException",
        "AllAccessDisabled",
        "AuthorizationError",
        "AuthorizationErrorException",
        "Forbidden",
    }
)
_NO_CREDENTIALS = (
    sdk.CredentialRetrievalError,
    sdk.NoAuthTokenError,
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.SSOError,
    sdk.TokenRetrievalError,
)
_LONGEST_TEXT = 300


class BucketMissingError(StoreError, InputError):
    """The bucket of the deployment is gone."""


def remake(name: str) -> str:
    """The commands that mend a deployment which has lost a part: CloudFormation does not see what others removed."""
    return f"fsd destroy aws --name {name}, then: fsd deploy aws --name {name}"


def error_code(error: Exception) -> str:
    """The code of an answer of AWS, such as ``NoSuchKey``; empty if `error` is not one."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, sdk.ClientError) else ""


def is_throttled(error: BaseException | None) -> bool:
    """Whether AWS refused because too much was asked at once."""
    return isinstance(error, sdk.ClientError) and error_code(error) in THROTTLED


def translate(error: Exception, doing: str, kind: type[FsdError]) -> FsdError:
    """The framework's error for what the SDK raised while `doing` something; `kind` where nothing better is known."""
    code = error_code(error)
    if problem := _of_credentials(error, code, doing):
        return CredentialsError(problem)
    if isinstance(error, sdk.NoRegionError):
        return ConfigError("no AWS region: set region in [aws], or AWS_DEFAULT_REGION")
    if isinstance(error, (sdk.ProfileNotFound, sdk.InvalidRegionError)):
        return ConfigError(_text(error))
    endpoint = str(getattr(error, "kwargs", {}).get("endpoint_url", ""))
    if isinstance(error, (sdk.ConnectionError, sdk.HTTPClientError)) and is_loopback(endpoint):
        gone = is_refused(error)
        return kind(f"{doing}: {absent(endpoint, 'aws') if gone else silent(endpoint, 'aws', type(error).__name__)}")
    if code in DENIED:
        denied = AccessDeniedError if issubclass(kind, StoreError) else kind
        return denied(f"{doing}: AWS refused: {_text(error)}")
    return kind(f"{doing}: {_text(error)}")


def _of_credentials(error: Exception, code: str, doing: str) -> str:
    """What is wrong with the credentials, and what to do; empty if the error is of something else."""
    if code in _EXPIRED or isinstance(error, sdk.UnauthorizedSSOTokenError):
        return f"{doing}: the AWS credentials have expired; renew them and try again"
    if code in _NOT_ACCEPTED:
        return f"{doing}: AWS does not accept the credentials ({code}); check which ones are set"
    if isinstance(error, _NO_CREDENTIALS):
        return f"no AWS credentials: {_text(error)}; run: aws configure, or set AWS_PROFILE"
    return ""


def unreachable(error: sdk.EndpointConnectionError, doing: str, region: str) -> FsdError:
    """The framework's error where a service is asked for the first time, and the region may be what is wrong."""
    endpoint = str(error.kwargs["endpoint_url"])
    if is_loopback(endpoint):
        return translate(error, doing, ConfigError)
    return ConfigError(f"{doing}: cannot reach {endpoint}; is the region {region} right?")


@contextmanager
def translated(doing: str, kind: type[FsdError]) -> Iterator[None]:
    """Run the block with the errors of the SDK translated."""
    try:
        yield
    except (sdk.BotoCoreError, sdk.ClientError) as error:
        raise translate(error, doing, kind) from error


def _text(error: Exception) -> str:
    """What the error says, in one line."""
    if isinstance(error, sdk.ClientError):
        told = error.response.get("Error", {})
        text = f"{told.get('Message') or 'no reason given'} ({told.get('Code', 'no code')})"
    else:
        text = str(error)
    return without_secrets(" ".join(text.split()))[:_LONGEST_TEXT].rstrip(".")


Entries: TypeAlias = list[dict[str, Any]]

_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
# This delivery no longer counts, for the message has come again: the later delivery is what is to be deleted.
_COME_AGAIN = frozenset({"MessageNotInflight", "ReceiptHandleIsInvalid"})


def until_none_fails(
    entries: Entries,
    call: Callable[[Entries], dict[str, Any]],
    patience_seconds: float,
    doing: str,
    count_again: Callable[..., None],
) -> None:
    """Make a batch call, and again with those entries that the answer says have failed; `ChannelError` in the end.

    What is refused because too much is asked at once is tried for `patience_seconds`, with growing pauses, whoever the
    service says is to blame. Of others, an entry that is blamed on the sender is not sent again.
    """
    deadline = Deadline.after(patience_seconds, SYSTEM_CLOCK)
    for attempt in itertools.count(1):
        failed = _failed(entries, call, doing)
        if not failed:
            return
        throttled = all(item.get("Code") in THROTTLED for item in failed.values())
        blamed = any(item.get("SenderFault") for item in failed.values())
        if deadline.passed() if throttled else (blamed or attempt >= _ATTEMPTS):
            raise ChannelError(f"{doing}: {_told(failed, len(entries), throttled, patience_seconds)}")
        entries = [entry for entry in entries if entry["Id"] in failed]
        # Not all at the same time: many workers are refused together.
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        SYSTEM_CLOCK.sleep(min(pause, max(deadline.remaining(), _FIRST_PAUSE)))
        count_again()
    raise AssertionError("attempts do not end")


def _failed(entries: Entries, call: Callable[[Entries], dict[str, Any]], doing: str) -> dict[str, dict[str, Any]]:
    """The entries that failed, by their ids: all, where the service refused the call for its rate."""
    try:
        answer = call(entries)
    except sdk.ClientError as error:
        if not is_throttled(error):
            raise translate(error, doing, ChannelError) from error
        return {entry["Id"]: {"Code": error_code(error), "Message": str(error)} for entry in entries}
    except sdk.BotoCoreError as error:
        raise translate(error, doing, ChannelError) from error
    return {item["Id"]: item for item in answer.get("Failed", ()) if item.get("Code") not in _COME_AGAIN}


def _told(failed: dict[str, dict[str, Any]], sent: int, throttled: bool, seconds: float) -> str:
    first = next(iter(failed.values()))
    text = f"{len(failed)} of {sent} messages failed, {first.get('Code')}: {first.get('Message') or 'no reason given'}"
    if not throttled:
        return text
    return (
        f"{text}; the quota of the account was in the way for {seconds:.0f} s: ask for more in Service Quotas, "
        "take fewer workers, or channel = object"
    )
