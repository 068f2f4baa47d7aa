"""What AWS says went wrong, in the framework's words."""

from __future__ import annotations

import botocore.exceptions as sdk
import pytest

from fsd_aws.errors import error_code, translate, translated
from fsdcore.errors import AccessDeniedError, ChannelError, ConfigError, CredentialsError, FsdError, StoreError


def answer(code: str, message: str = "the service's text") -> sdk.ClientError:
    return sdk.ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


@pytest.mark.parametrize(
    ("error", "kind", "expected", "text"),
    [
        (answer("ExpiredToken"), StoreError, CredentialsError, "have expired; renew"),
        (answer("ExpiredTokenException"), ChannelError, CredentialsError, "have expired; renew"),
        (answer("InvalidClientTokenId"), ChannelError, CredentialsError, "does not accept the credentials"),
        (answer("SignatureDoesNotMatch"), StoreError, CredentialsError, "does not accept the credentials"),
        (sdk.NoCredentialsError(), StoreError, CredentialsError, "run: aws configure"),
        (sdk.ProfileNotFound(profile="mine"), ConfigError, ConfigError, "mine"),
        (sdk.NoRegionError(), StoreError, ConfigError, "or AWS_DEFAULT_REGION"),
        (answer("AccessDenied"), StoreError, AccessDeniedError, "AWS refused: the service's text"),
        (answer("AuthorizationError"), ChannelError, ChannelError, "AWS refused: the service's text"),
        (answer("Throttling", "Rate\nexceeded."), ChannelError, ChannelError, "Rate exceeded. (Throttling)"),
        (sdk.EndpointConnectionError(endpoint_url="http://x"), StoreError, StoreError, "http://x"),
    ],
    ids=lambda value: error_code(value) or type(value).__name__ if isinstance(value, Exception) else None,
)
def test_each_is_one_clear_line_of_the_right_kind(
    error: Exception, kind: type[FsdError], expected: type[FsdError], text: str
) -> None:
    found = translate(error, "doing something", kind)
    assert type(found) is expected
    assert text in found.message
    assert "\n" not in found.message


def test_only_errors_of_the_sdk_are_translated() -> None:
    with pytest.raises(ChannelError, match="sending: "), translated("sending", ChannelError):
        raise answer("InternalError")
    with pytest.raises(KeyError), translated("sending", ChannelError):
        raise KeyError
