"""Identity tokens: who starts a worker shows one to the function."""

from __future__ import annotations

import threading
from typing import Any

from backends.gcp.errors import translated
from fsdcore.errors import ComputeError

__all__ = ["IdentityTokens"]

_LOCAL = "local"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class IdentityTokens:
    """Tokens for one function.

    Inside a function they come from the metadata server, with a key of a service account from that key. A person has
    no identity that a function takes, so a person's credentials borrow that of the deployment's service account.
    """

    def __init__(self, audience: str, service_account: str, emulated: bool) -> None:
        self._audience, self._service_account, self._emulated = audience, service_account, emulated
        self._lock = threading.Lock()
        self._credentials: Any = None

    def token(self) -> str:
        """A token that is good for some minutes at least. `CredentialsError` if there can be none."""
        if self._emulated:
            return _LOCAL
        with self._lock, translated("asking for an identity token", ComputeError):
            return self._fresh()

    def _fresh(self) -> str:
        from google.auth.transport.requests import Request

        self._credentials = self._credentials or self._make(Request())
        if not self._credentials.valid:
            self._credentials.refresh(Request())
        return str(self._credentials.token)

    def _make(self, request: Any) -> Any:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError
        from google.oauth2 import id_token

        try:
            return id_token.fetch_id_token_credentials(self._audience, request=request)
        except DefaultCredentialsError:
            source, _ = google.auth.default(scopes=[_SCOPE])
            return self._borrowed(source)

    def _borrowed(self, source: Any) -> Any:
        from google.auth import impersonated_credentials

        target = impersonated_credentials.Credentials(
            source_credentials=source, target_principal=self._service_account, target_scopes=[_SCOPE]
        )
        return impersonated_credentials.IDTokenCredentials(target, target_audience=self._audience, include_email=True)
