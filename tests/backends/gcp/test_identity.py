"""Identity tokens: where they come from, how long they are kept, and what is said where there can be none."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google.auth
import pytest
from google.auth import impersonated_credentials
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.oauth2 import id_token
from google.oauth2.credentials import Credentials as Person

from backends.gcp.identity import IdentityTokens
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import CredentialsError

URL = "https://europe-west4-p.cloudfunctions.net/fsd-demo"
ACCOUNT = "fsd-demo@p.iam.gserviceaccount.com"


class Credentials:
    """Credentials of which each refresh gives another token; it is good until `expire`."""

    def __init__(self) -> None:
        self.valid, self.refreshes = False, 0

    @property
    def token(self) -> str:
        return f"token-{self.refreshes}"

    def refresh(self, request: object) -> None:
        del request
        SYSTEM_CLOCK.sleep(0.01)
        self.refreshes += 1
        self.valid = True

    def expire(self) -> None:
        self.valid = False


@pytest.fixture
def tokens() -> IdentityTokens:
    return IdentityTokens(URL, ACCOUNT, emulated=False)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    """What a function, or a key of a service account, has: an identity of its own for the function at `URL`."""
    made = Credentials()

    def fetch(audience: str, request: object) -> Credentials:
        assert audience == URL
        assert callable(request)
        return made

    monkeypatch.setattr(id_token, "fetch_id_token_credentials", fetch)
    return made


def refused(error: Exception) -> Callable[..., Any]:
    def raised(*_: object, **__: object) -> None:
        raise error

    return raised


def test_local_services_need_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_token, "fetch_id_token_credentials", refused(AssertionError("asked for")))
    assert IdentityTokens(URL, "", emulated=True).token() == "local"


def test_a_token_is_kept_until_it_ends(tokens: IdentityTokens, own: Credentials) -> None:
    assert [tokens.token(), tokens.token()] == ["token-1", "token-1"]
    own.expire()
    assert tokens.token() == "token-2"


def test_threads_share_one_token(tokens: IdentityTokens, own: Credentials) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: tokens.token(), range(8))) == {"token-1"}
    assert own.refreshes == 1


def test_a_person_borrows_the_identity_of_the_service_account(
    tokens: IdentityTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, asked = Person("of a person"), list[tuple[object, ...]]()
    monkeypatch.setattr(id_token, "fetch_id_token_credentials", refused(DefaultCredentialsError("a person")))
    monkeypatch.setattr(google.auth, "default", lambda scopes: (person, "p"))

    def refresh(borrowed: Any, request: object) -> None:
        del request
        target = borrowed._target_credentials
        asked.append((target._source_credentials.token, target._target_principal, borrowed._target_audience))
        borrowed.token = "borrowed"

    monkeypatch.setattr(impersonated_credentials.IDTokenCredentials, "refresh", refresh)
    assert tokens.token() == "borrowed"
    assert asked == [("of a person", ACCOUNT, URL)]


def test_without_credentials_the_command_is_named(tokens: IdentityTokens, monkeypatch: pytest.MonkeyPatch) -> None:
    none = refused(DefaultCredentialsError("Your default credentials were not found."))
    monkeypatch.setattr(id_token, "fetch_id_token_credentials", none)
    monkeypatch.setattr(google.auth, "default", none)
    with pytest.raises(CredentialsError, match="gcloud auth application-default login") as caught:
        tokens.token()
    assert caught.value.exit_code == 2


def test_a_token_that_cannot_be_renewed_is_one_line(
    tokens: IdentityTokens, own: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "refresh", refused(RefreshError("the key\nwas revoked")))
    with pytest.raises(CredentialsError) as caught:
        tokens.token()
    assert "\n" not in str(caught.value)
