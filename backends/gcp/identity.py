"""Identity tokens: who starts a worker shows one to the function."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import RefreshError

from backends.gcp.errors import translated
from fsdcore.errors import AccessDeniedError, ComputeError

__all__ = ["IdentityTokens"]

_LOCAL = "local"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_BORROWING = "roles/iam.serviceAccountOpenIdTokenCreator"


class IdentityTokens:
    """Tokens for one function, by whose `credentials` the calls of services are made with.

    A function or another machine of Google's has an identity of its own from its metadata server, a key of a service
    account one from that key. A person, or a workload of elsewhere, has none that a function takes: such credentials
    borrow that of the deployment's service account, and so does a machine whose server gives none, as Cloud Shell's.
    """

    def __init__(self, audience: str, service_account: str, credentials: Callable[[], Credentials]) -> None:
        """`credentials` is called when a token is first asked for."""
        self._audience, self._service_account, self._source = audience, service_account, credentials
        self._lock = threading.Lock()
        self._made: Any = None
        self._borrows = False

    def token(self) -> str:
        """A token that is good for some minutes at least.

        `CredentialsError` if there can be none, `AccessDeniedError` if the identity may not be borrowed.
        """
        with self._lock, translated("asking for an identity token", ComputeError):
            source = self._source()
            return _LOCAL if isinstance(source, AnonymousCredentials) else self._fresh(source)

    def _fresh(self, source: Credentials) -> str:
        self._made = self._made or self._own(source) or self._borrowed(source)
        if not self._made.valid:
            self._refresh(source)
        return str(self._made.token)

    def _refresh(self, source: Credentials) -> None:
        from google.auth.transport.requests import Request

        try:
            self._made.refresh(Request())
        except RefreshError as error:
            if self._borrows:
                raise self._refused(error) from error
            # Its server has no identity to give.
            if not _is_machine(source):
                raise
            self._made = self._borrowed(source)
            self._refresh(source)

    def _own(self, source: Any) -> Any:
        """Credentials for an identity of its own; None if there is none."""
        from google.auth import compute_engine, impersonated_credentials
        from google.auth.transport.requests import Request
        from google.oauth2 import service_account

        if isinstance(source, compute_engine.Credentials):
            return compute_engine.IDTokenCredentials(Request(), self._audience, use_metadata_identity_endpoint=True)
        if isinstance(source, service_account.Credentials):
            return service_account.IDTokenCredentials(
                source.signer, source.service_account_email, source._token_uri, self._audience
            )
        if isinstance(source, impersonated_credentials.Credentials):
            return impersonated_credentials.IDTokenCredentials(source, self._audience, include_email=True)
        return None

    def _borrowed(self, source: Credentials) -> Any:
        from google.auth import impersonated_credentials

        self._borrows = True
        target = impersonated_credentials.Credentials(
            source_credentials=source, target_principal=self._service_account, target_scopes=[_SCOPE]
        )
        return impersonated_credentials.IDTokenCredentials(target, target_audience=self._audience, include_email=True)

    def _refused(self, error: RefreshError) -> Exception:
        """A role that is missing is no fault of the credentials, and logging in anew does not mend it."""
        if "getOpenIdToken" not in str(error):
            return error
        return AccessDeniedError(
            f"the identity of {self._service_account} may not be borrowed: the role {_BORROWING} on it is missing, or "
            "not in force yet, which takes some minutes; if it lasts, run fsd deploy gcp, or have its callers name you"
        )


def _is_machine(source: Credentials) -> bool:
    from google.auth import compute_engine

    return isinstance(source, compute_engine.Credentials)
