"""Identity tokens: where they come from, how long they are kept, and what is said where there can be none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google.auth.compute_engine._metadata as metadata
import google.auth.iam
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import compute_engine, impersonated_credentials
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.oauth2 import service_account
from google.oauth2.credentials import Credentials as Person

from fsd_emulators.gcp.identities import email_of, token_for
from fsd_gcp.calls.asking import NoWayError
from fsd_gcp.calls.errors import translated
from fsd_gcp.calls.identity import ApiDisabledError, IdentityTokens
from fsd_gcp.settings import is_account
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import AccessDeniedError, ComputeError, ConfigError, CredentialsError, DeploymentMissingError
from tests.backends.gcp.stubs import CUT, SILENCE, Asked, Reply, Stub, as_json, serving

URL = "https://europe-west4-p.cloudfunctions.net/fsd-demo"
ACCOUNT = "fsd-demo@p.iam.gserviceaccount.com"
ROBOT, MACHINE = "robot@p.iam.gserviceaccount.com", "123-compute@developer.gserviceaccount.com"
FLAVOR = {"Metadata-Flavor": "Google", "Content-Type": "application/text"}
ACCESS = as_json(
    200, {"access_token": "t", "expires_in": 3_600, "token_type": "Bearer"}, **{"Metadata-Flavor": "Google"}
)
DENIED = as_json(403, {"error": {"message": "Permission 'iam.serviceAccounts.getOpenIdToken' denied on resource"}})
BUSY = Reply(503, b"busy", FLAVOR)


class Google(Stub):
    """Its token servers, those of a machine too: `person`, `iam`, `key`, `machine` are what each answers next."""

    def __init__(self) -> None:
        self.person = ACCESS
        self.iam = as_json(200, {"token": token_for(ACCOUNT, URL)})
        self.key = as_json(200, {"id_token": token_for(ROBOT, URL)})
        self.machine = Reply(200, token_for(MACHINE, URL).encode(), FLAVOR)
        super().__init__(self._reply)

    def _reply(self, asked: Asked) -> Reply:
        if "generateIdToken" in asked.path:
            return self.iam
        if "/identity" in asked.path:
            return self.machine
        if "/computeMetadata" in asked.path and not asked.path.partition("?")[0].endswith("/token"):
            return as_json(200, {"email": MACHINE, "scopes": ["s"], "aliases": []}, **{"Metadata-Flavor": "Google"})
        return self.key if b"assertion" in asked.body else self.person

    def count(self, part: str) -> int:
        return sum(part in asked.path for asked in self.asked)


@pytest.fixture
def google_(monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    made = Google()
    address = f"{made.url}/v1/projects/-/serviceAccounts/{{}}:generateIdToken"
    monkeypatch.setattr(google.auth.iam, "_IAM_IDTOKEN_ENDPOINT", address)
    monkeypatch.setattr(metadata, "_GCE_METADATA_HOST", made.host)
    yield made
    made.close()


def tokens_of(source: Any, in_worker: bool = False) -> IdentityTokens:
    return IdentityTokens(URL, ACCOUNT, lambda: source, in_worker)


def person(google_: Google) -> Person:
    return Person(None, refresh_token="r", token_uri=f"{google_.url}/token", client_id="i", client_secret="s")


def machine(google_: Google) -> compute_engine.Credentials:
    del google_
    return compute_engine.Credentials(universe_domain="googleapis.com")


@pytest.fixture(scope="module")
def private_key() -> str:
    made = rsa.generate_private_key(65_537, 2_048)
    return made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def test_local_services_need_no_identity() -> None:
    assert tokens_of(AnonymousCredentials()).token() == "local"


def test_a_token_is_kept_until_it_ends(google_: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokens_of(machine(google_))
    assert [email_of(tokens.token()), email_of(tokens.token())] == [MACHINE, MACHINE]
    assert google_.count("/identity") == 1
    later = SYSTEM_CLOCK.wall() + 3_500.0
    monkeypatch.setattr(SYSTEM_CLOCK, "wall", lambda: later)
    tokens.token()
    assert google_.count("/identity") == 2


def test_a_token_that_is_not_taken_can_be_forgotten(google_: Google) -> None:
    tokens = tokens_of(machine(google_))
    tokens.token()
    tokens.forget()
    tokens.token()
    assert google_.count("/identity") == 2


def test_threads_share_one_token(google_: Google) -> None:
    tokens = tokens_of(machine(google_))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: tokens.token(), range(8)))) == 1
    assert google_.count("/identity") == 1


def test_a_person_borrows_the_identity_of_the_service_account(google_: Google) -> None:
    assert email_of(tokens_of(person(google_)).token()) == ACCOUNT
    (lent,) = (asked for asked in google_.asked if "generateIdToken" in asked.path)
    assert f"/serviceAccounts/{ACCOUNT}:" in lent.path
    assert lent.headers["authorization"] == "Bearer t"


def test_a_key_is_an_identity_of_its_own(google_: Google, private_key: str) -> None:
    account = {"client_email": ROBOT, "private_key": private_key, "token_uri": f"{google_.url}/token"}
    source = service_account.Credentials.from_service_account_info(account)
    assert email_of(tokens_of(source).token()) == ROBOT


def test_a_machine_without_an_identity_borrows(google_: Google) -> None:
    google_.machine = Reply(404, b"not found", FLAVOR)
    assert email_of(tokens_of(machine(google_)).token()) == ACCOUNT


def test_a_worker_never_borrows(google_: Google) -> None:
    google_.machine = Reply(404, b"not found", FLAVOR)
    with pytest.raises(ComputeError, match="HTTP 404"):
        tokens_of(machine(google_), in_worker=True).token()
    assert google_.count("generateIdToken") == 0


@pytest.mark.parametrize("in_worker", [True, False])
@pytest.mark.parametrize("hiccup", [BUSY, CUT, Reply(429, b"", FLAVOR), Reply(200, b"<html>", FLAVOR)])
def test_a_server_that_was_busy_is_asked_again_the_next_time(google_: Google, hiccup: Reply, in_worker: bool) -> None:
    tokens, well = tokens_of(machine(google_), in_worker), google_.machine
    google_.machine = hiccup
    begin = SYSTEM_CLOCK.now()
    with pytest.raises(ComputeError):
        tokens.token()
    assert SYSTEM_CLOCK.now() - begin < 5.0
    assert google_.count("generateIdToken") == 0
    google_.machine = well
    assert email_of(tokens.token()) == MACHINE


def test_a_machine_that_had_no_identity_for_a_moment_is_itself_again(google_: Google) -> None:
    tokens, well = tokens_of(machine(google_)), google_.machine
    google_.machine, google_.iam = Reply(404, b"not found", FLAVOR), DENIED
    with pytest.raises(AccessDeniedError):
        tokens.token()
    google_.machine = well
    assert email_of(tokens.token()) == MACHINE


def test_a_machine_that_refuses_is_told(google_: Google) -> None:
    google_.machine = Reply(403, b"this metadata is concealed", FLAVOR)
    with pytest.raises(AccessDeniedError, match="HTTP 403: this metadata is concealed") as caught:
        tokens_of(machine(google_)).token()
    assert "application-default login" not in str(caught.value)
    assert google_.count("generateIdToken") == 0


def test_who_acts_for_an_account_has_its_identity(google_: Google) -> None:
    robot = impersonated_credentials.Credentials(person(google_), ROBOT, [])
    tokens_of(robot).token()
    assert google_.count(f"/serviceAccounts/{ROBOT}:generateIdToken") == 1


def test_without_credentials_the_command_is_named() -> None:
    def none() -> Any:
        with translated("looking for credentials"):
            raise DefaultCredentialsError("Your default credentials were not found.")

    with pytest.raises(CredentialsError, match="gcloud auth application-default login") as caught:
        IdentityTokens(URL, ACCOUNT, none).token()
    assert caught.value.exit_code == 2
    # A worker has credentials, and its machine may not have answered.
    with pytest.raises(ComputeError):
        IdentityTokens(URL, ACCOUNT, none, in_worker=True).token()


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (
            400,
            {"error": "invalid_grant", "error_description": "Token has been expired or revoked."},
            "expired or revoked",
        ),
        (401, {"error": "invalid_client"}, "invalid_client"),
    ],
)
def test_credentials_that_are_not_taken_are_one_line(google_: Google, status: int, content: Any, said: str) -> None:
    google_.person = as_json(status, content)
    with pytest.raises(CredentialsError, match="application-default login") as caught:
        tokens_of(person(google_)).token()
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("whose", [ACCOUNT, ROBOT])
def test_a_missing_role_is_no_fault_of_the_credentials(google_: Google, whose: str) -> None:
    google_.iam, source = DENIED, person(google_)
    tokens = tokens_of(source if whose == ACCOUNT else impersonated_credentials.Credentials(source, whose, []))
    with pytest.raises(AccessDeniedError, match=r"the role roles/iam\.serviceAccountOpenIdTokenCreator") as caught:
        tokens.token()
    assert not isinstance(caught.value, CredentialsError)
    assert f"identity of {whose} may not be borrowed" in str(caught.value)
    assert "HTTP 403: Permission 'iam.serviceAccounts.getOpenIdToken' denied" in str(caught.value)
    assert ("its callers name you" in str(caught.value)) is (whose == ACCOUNT)


OFF = "IAM Service Account Credentials API has not been used in project 1 before or it is disabled."
PAGE_OF = "Enable it by visiting https://console.developers.google.com/apis/api/iamcredentials.googleapis.com/overview"
RULE = "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: abc"
ABSENT = "Not found; Gaia id not found for email fsd-demo@p.iam.gserviceaccount.com"


@pytest.mark.parametrize(
    ("status", "message", "kind", "said"),
    [
        (403, f"{OFF} {PAGE_OF}", ApiDisabledError, "gcloud services enable iamcredentials.googleapis.com; .*minutes"),
        (403, RULE, AccessDeniedError, "vpcServiceControlsUniqueIdentifier: abc"),
        (404, ABSENT, DeploymentMissingError, "Gaia id not found.*; if it lasts, run: fsd deploy gcp"),
        (400, "Invalid audience", AccessDeniedError, "HTTP 400: Invalid audience"),
        (401, "Request had invalid authentication credentials", CredentialsError, "invalid authentication credentials"),
        (429, "Quota exceeded", ComputeError, "HTTP 429: Quota exceeded"),
        (500, "Internal error", ComputeError, "HTTP 500: Internal error"),
        (503, "The service is unavailable", ComputeError, "HTTP 503: The service is unavailable"),
    ],
)
def test_what_the_lender_says_is_told(
    google_: Google, status: int, message: str, kind: type[Exception], said: str
) -> None:
    google_.iam = as_json(status, {"error": {"code": status, "message": message}})
    with pytest.raises(kind, match=said) as caught:
        tokens_of(person(google_)).token()
    assert ("application-default login" in str(caught.value)) is (kind is CredentialsError)
    assert str(caught.value).isprintable()
    assert issubclass(ApiDisabledError, ConfigError)


@pytest.mark.parametrize("of", ["iam", "person", "machine", "key"])
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b"<html>login</html>", b'{"token": "abc"}', b'{"token": null}', b"\xff", b"a.b.c"],
)
def test_an_answer_that_is_no_token_may_be_one_the_next_time(
    google_: Google, of: str, content: bytes, private_key: str
) -> None:
    setattr(google_, of, Reply(200, content, FLAVOR))
    account = {"client_email": ROBOT, "private_key": private_key, "token_uri": f"{google_.url}/token"}
    sources: dict[str, Callable[[], Any]] = {
        "key": lambda: service_account.Credentials.from_service_account_info(account),
        "machine": lambda: machine(google_),
    }
    with pytest.raises(ComputeError, match="what came is no token: HTTP 200") as caught:
        tokens_of(sources.get(of, lambda: person(google_))()).token()
    assert ("login" in str(caught.value)) is (b"<" in content)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("of", ["iam", "person", "machine"])
def test_a_silent_server_is_waited_for_no_longer_than_told(google_: Google, of: str) -> None:
    setattr(google_, of, SILENCE)
    tokens, begin = tokens_of(machine(google_) if of == "machine" else person(google_)), SYSTEM_CLOCK.now()
    with pytest.raises(ComputeError):
        tokens.token(0.5)
    assert SYSTEM_CLOCK.now() - begin < 3.0


def test_nobody_waits_for_long_behind_one_that_asks(google_: Google) -> None:
    google_.machine = SILENCE
    tokens = tokens_of(machine(google_))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(tokens.token, 2.0)
        while not google_.asked:
            SYSTEM_CLOCK.sleep(0.01)
        begin = SYSTEM_CLOCK.now()
        with pytest.raises(ComputeError, match="no answer within"):
            tokens.token(0.3)
        assert SYSTEM_CLOCK.now() - begin < 1.5
        with pytest.raises(ComputeError):
            first.result()


def test_a_way_that_is_none_is_told_with_its_variable(google_: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(asked: Asked) -> Reply:
        return Reply(407, b"", {"Proxy-Authenticate": "Basic"})

    source = Person(None, refresh_token="r", token_uri="https://x.test/token", client_id="i", client_secret="s")
    with serving(refuse) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(NoWayError, match="HTTPS_PROXY"):
            tokens_of(source).token()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
        with pytest.raises(NoWayError, match="/nowhere"):
            tokens_of(source).token()


@pytest.mark.parametrize(("email", "is_one"), [(ACCOUNT, True), (MACHINE, True), ("ann@example.com", False)])
def test_accounts_are_told_from_people_by_their_address(email: str, is_one: bool) -> None:
    assert is_account(email) is is_one
