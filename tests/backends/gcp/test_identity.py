"""Identity tokens: where they come from, how long they are kept, and what is said where there can be none."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.auth import compute_engine, impersonated_credentials
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.oauth2.credentials import Credentials as Person

from backends.gcp.identity import IdentityTokens
from backends.gcp.settings import is_account
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import AccessDeniedError, CredentialsError

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


ROBOT = "robot@p.iam.gserviceaccount.com"
PERSON = Person("of a person")


def tokens_of(source: Any) -> IdentityTokens:
    return IdentityTokens(URL, ACCOUNT, lambda: source)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    """What a machine of Google's has: an identity of its own for the function at `URL`."""
    made = Credentials()

    def fetch(request: object, audience: str, use_metadata_identity_endpoint: bool) -> Credentials:
        assert callable(request)
        assert (audience, use_metadata_identity_endpoint) == (URL, True)
        return made

    monkeypatch.setattr(compute_engine, "IDTokenCredentials", fetch)
    return made


@pytest.fixture
def tokens(own: Credentials) -> IdentityTokens:
    assert not own.valid
    return tokens_of(compute_engine.Credentials(universe_domain="googleapis.com"))


@pytest.fixture
def borrowed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Whose identity was borrowed by whom, for what."""
    asked: list[tuple[object, ...]] = []

    def refresh(made: Any, request: object) -> None:
        del request
        target = made._target_credentials
        asked.append((target._source_credentials.token, target._target_principal, made._target_audience))
        made.token = "borrowed"

    monkeypatch.setattr(impersonated_credentials.IDTokenCredentials, "refresh", refresh)
    return asked


def refused(error: Exception) -> Callable[..., Any]:
    def raised(*_: object, **__: object) -> None:
        raise error

    return raised


def test_local_services_need_no_identity() -> None:
    assert tokens_of(AnonymousCredentials()).token() == "local"


def test_a_token_is_kept_until_it_ends(tokens: IdentityTokens, own: Credentials) -> None:
    assert [tokens.token(), tokens.token()] == ["token-1", "token-1"]
    own.expire()
    assert tokens.token() == "token-2"


def test_threads_share_one_token(tokens: IdentityTokens, own: Credentials) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: tokens.token(), range(8))) == {"token-1"}
    assert own.refreshes == 1


def test_a_person_borrows_the_identity_of_the_service_account(borrowed: list[tuple[object, ...]]) -> None:
    assert tokens_of(PERSON).token() == "borrowed"
    assert borrowed == [("of a person", ACCOUNT, URL)]


def test_a_machine_without_an_identity_borrows(
    tokens: IdentityTokens, own: Credentials, borrowed: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "refresh", refused(RefreshError("Failed to retrieve .../identity: 404")))
    assert tokens.token() == "borrowed"
    assert len(borrowed) == 1


def test_who_acts_for_an_account_has_its_identity(borrowed: list[tuple[object, ...]]) -> None:
    robot = impersonated_credentials.Credentials(PERSON, ROBOT, [])
    assert tokens_of(robot).token() == "borrowed"
    assert borrowed == [("of a person", ROBOT, URL)]


def test_without_credentials_the_command_is_named() -> None:
    none = IdentityTokens(URL, ACCOUNT, refused(DefaultCredentialsError("Your default credentials were not found.")))
    with pytest.raises(CredentialsError, match="gcloud auth application-default login") as caught:
        none.token()
    assert caught.value.exit_code == 2


def test_a_token_that_cannot_be_renewed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        impersonated_credentials.IDTokenCredentials, "refresh", refused(RefreshError("the login\nwas revoked"))
    )
    with pytest.raises(CredentialsError, match="application-default login") as caught:
        tokens_of(PERSON).token()
    assert "\n" not in str(caught.value)


def test_a_missing_role_is_no_fault_of_the_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = RefreshError("Permission 'iam.serviceAccounts.getOpenIdToken' denied on resource")
    monkeypatch.setattr(impersonated_credentials.IDTokenCredentials, "refresh", refused(denied))
    with pytest.raises(AccessDeniedError, match=r"the role roles/iam\.serviceAccountOpenIdTokenCreator") as caught:
        tokens_of(PERSON).token()
    assert not isinstance(caught.value, CredentialsError)


@pytest.mark.parametrize(("email", "is_one"), [(ACCOUNT, True), ("123-compute@developer.gserviceaccount.com", True)])
def test_accounts_are_told_from_people_by_their_address(email: str, is_one: bool) -> None:
    assert is_account(email) is is_one
    assert not is_account("ann@example.com")
