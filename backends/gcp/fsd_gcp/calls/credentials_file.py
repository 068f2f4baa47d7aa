"""The file that Google's library takes credentials from, looked at before it does.

The library takes much of a file as it is, and fails in many ways where that is not as it should be. Here each fault is
one line that names the file, what is wrong with it, and what to do.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from fsdcore.decoding import Refusal, converted, from_json
from fsdcore.errors import CredentialsError
from fsdcore.text import printable

LOGIN = "run: gcloud auth application-default login"
_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_FOLDER = "CLOUDSDK_CONFIG"
_MOST_BYTES = 1 << 20
_EXECUTABLES = "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES"
_AWS = "urn:ietf:params:aws:token-type:aws4_request"


class Place(NamedTuple):
    """A file with credentials, and whether the variable names it; else it is gcloud's own."""

    path: str
    named: bool

    @property
    def remedy(self) -> str:
        """What the user can do: log in with gcloud, unless the variable names the file."""
        return f"mend it, name another, or unset {_VARIABLE}" if self.named else LOGIN

    def __str__(self) -> str:
        return f"{printable(self.path)}{f', which {_VARIABLE} names' if self.named else ''}"

    def refusal(self, reason: str) -> CredentialsError:
        """The error for this file, which says `reason` and what to do."""
        return CredentialsError(f"there are no Google Cloud credentials in {self}: {reason}; {self.remedy}")


def place() -> Place | None:
    """Where the library looks; None if there is no file for it, and it asks the machine."""
    from google.auth import _cloud_sdk

    named, own = os.environ.get(_VARIABLE, ""), _cloud_sdk.get_application_default_credentials_path()
    if named and named != own:
        return Place(named, named=True)
    return Place(own, named=False) if os.path.isfile(own) else None


def missing() -> str:
    """What to say if there is neither a file nor a machine that has credentials."""
    folder = os.environ.get(_FOLDER)
    where = f" ({_FOLDER} says that gcloud's files are in {printable(folder)})" if folder is not None else ""
    return f"there are no Google Cloud credentials; {LOGIN}{where}"


def remedy() -> str:
    """What to do about credentials that a service does not take."""
    found = place()
    return f"mend {found}, or unset the variable" if found is not None and found.named else LOGIN


def check(found: Place) -> None:
    """`CredentialsError` if the file is none that can be used, as far as it shows in the file."""
    data = _read(found.path, found.refusal)
    if data is not None:
        _check(from_json(data, dict[str, Any], _kindly(found.refusal)), _KINDS, found.refusal)


def _of_part(part: str, refusal: Refusal) -> Refusal:
    return lambda reason: refusal(f"{part}: {reason}")


def _kindly(refusal: Refusal) -> Refusal:
    return _of_part("it is not what such a file holds", refusal)


def _read(path: str, refusal: Refusal) -> bytes | None:
    """What is in a file; None of a pipe, which can be read but once, by whom it is for."""
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise refusal((error.strerror or str(error)).lower()) from error
    if not data.strip():
        raise refusal("it is empty")
    if len(data) > _MOST_BYTES:
        raise refusal("it is larger than any such file")
    return data


# What the library needs of each kind, and what it takes as it is.


_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s]+\S*$")]
_Impersonation = Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s]+/\S*:generateAccessToken$")]
_Milliseconds = Annotated[int, msgspec.Meta(ge=5_000, le=120_000)]
_LongMilliseconds = Annotated[int, msgspec.Meta(ge=30_000, le=1_800_000)]
_Lifetime = Annotated[int, msgspec.Meta(ge=600, le=43_200)]


class _Kind(msgspec.Struct, kw_only=True):
    quota_project_id: str | None = None
    universe_domain: _Text = "googleapis.com"

    def look(self, refusal: Refusal) -> None:
        """Raise what `refusal` makes of what the types of the fields do not say."""


class _Person(_Kind, kw_only=True):
    client_id: _Text
    client_secret: _Text
    refresh_token: _Text
    expiry: str | None = None
    token: str | None = None
    scopes: list[str] | str | None = None


class _Workforce(_Person, kw_only=True):
    token_url: _Url
    audience: str | None = None
    token_info_url: str | None = None
    scopes: list[str] | None = None


class _Account(_Kind, kw_only=True):
    client_email: _Text
    token_uri: _Url
    private_key: _Text
    private_key_id: str | None = None
    project_id: str | None = None

    def look(self, refusal: Refusal) -> None:
        if not _is_key(self.private_key):
            raise refusal("its private_key is not the RSA key that Google gives, or is damaged")


def _is_key(text: str) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return isinstance(load_pem_private_key(text.encode(), None), RSAPrivateKey)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # A `TypeError` is for a key with a password.
        return False


class _Format(msgspec.Struct):
    type: Literal["text", "json"] | None = None
    subject_token_field_name: _Text | None = None


class _Executable(msgspec.Struct):
    command: _Text
    timeout_millis: _Milliseconds | None = None
    interactive_timeout_millis: _LongMilliseconds | None = None
    output_file: str | None = None

    def look(self, refusal: Refusal) -> None:
        if os.environ.get(_EXECUTABLES) != "1":
            raise refusal(f"it has a command run, which {_EXECUTABLES}=1 must allow")
        try:
            name = shlex.split(self.command)[0]
        except (ValueError, IndexError) as error:
            raise refusal(f"its command {printable(self.command)!r} is none") from error
        if shutil.which(name) is None:
            raise refusal(f"there is no command {printable(name)!r}, which it has run")


class _Certificate(msgspec.Struct):
    certificate_config_location: str | None = None
    use_default_certificate_config: bool | None = None
    trust_chain_path: str | None = None

    def look(self, refusal: Refusal) -> None:
        if bool(self.certificate_config_location) is bool(self.use_default_certificate_config):
            raise refusal("either certificate_config_location or use_default_certificate_config must be there")
        for path in (self.certificate_config_location, self.trust_chain_path):
            if path:
                _read(path, _of_part(f"its file {printable(path)}", refusal))


class _Source(msgspec.Struct):
    file: _Text | None = None
    url: _Url | None = None
    executable: _Executable | None = None
    certificate: _Certificate | None = None
    environment_id: str | None = None
    region_url: _Url | None = None
    imdsv2_session_token_url: _Url | None = None
    regional_cred_verification_url: str | None = None
    headers: dict[str, str] | None = None
    format: _Format = msgspec.field(default_factory=_Format)

    def look(self, aws: bool, refusal: Refusal) -> None:
        if aws:
            return self._look_for_aws(refusal)
        given = [each for each in (self.file, self.url, self.executable, self.certificate) if each is not None]
        if len(given) != 1 or self.environment_id is not None:
            raise refusal("its credential_source must have one of file, url, executable and certificate, and no other")
        if self.format.type == "json" and not self.format.subject_token_field_name:
            raise refusal("its credential_source lacks subject_token_field_name, which says what of the JSON it is")
        for each in (self.executable, self.certificate):
            if each is not None:
                each.look(refusal)
        return self._look_at_token(refusal)

    def _look_for_aws(self, refusal: Refusal) -> None:
        if self.environment_id != "aws1" or not self.regional_cred_verification_url:
            raise refusal("its credential_source must have environment_id aws1 and regional_cred_verification_url")

    def _look_at_token(self, refusal: Refusal) -> None:
        path, name = self.file, self.format.subject_token_field_name
        if path is None:
            return

        refusal = _of_part(f"its token file {printable(path)}", refusal)
        data = _read(path, refusal)
        if data is None:
            return
        if not _is_text(data):
            raise refusal("it is no UTF-8")
        if self.format.type == "json" and not _is_token(from_json(data, dict[str, Any], refusal).get(name or "")):
            raise refusal(f"it has no {printable(name or '')}")


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def _is_token(value: object) -> bool:
    return isinstance(value, str) and bool(value)


class _Federated(_Kind, kw_only=True):
    audience: _Text
    subject_token_type: _Text
    token_url: _Url
    credential_source: _Source
    token_info_url: str | None = None
    service_account_impersonation_url: _Impersonation | None = None
    service_account_impersonation: dict[Literal["token_lifetime_seconds"], _Lifetime] | None = None
    client_id: str | None = None
    client_secret: str | None = None
    workforce_pool_user_project: str | None = None

    def look(self, refusal: Refusal) -> None:
        if self.workforce_pool_user_project and "/workforcePools/" not in self.audience:
            raise refusal("it has workforce_pool_user_project, but its audience is no pool of a workforce")
        self.credential_source.look(self.subject_token_type == _AWS, refusal)


class _Impersonated(_Kind, kw_only=True):
    service_account_impersonation_url: _Impersonation
    source_credentials: dict[str, Any]
    delegates: list[str] | None = None
    scopes: list[str] | str | None = None

    def look(self, refusal: Refusal) -> None:
        _check(self.source_credentials, _SOURCES, lambda reason: refusal(f"in its source_credentials, {reason}"))


_SOURCES: dict[str, type[_Kind]] = {
    "authorized_user": _Person,
    "service_account": _Account,
    "external_account_authorized_user": _Workforce,
}
_KINDS: dict[str, type[_Kind]] = {
    **_SOURCES,
    "external_account": _Federated,
    "impersonated_service_account": _Impersonated,
}


def _check(content: dict[str, Any], kinds: dict[str, type[_Kind]], refusal: Refusal) -> None:
    kind = content.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        raise refusal(_unknown(kind, content, kinds))
    converted(content, kinds[kind], _kindly(refusal)).look(refusal)


def _unknown(kind: Any, content: dict[str, Any], kinds: dict[str, type[_Kind]]) -> str:
    """Why it is of no kind that can be used."""
    if kind == "gdch_service_account":
        return "it is for Google Distributed Cloud, which has not these services"
    if kind is None and ("installed" in content or "web" in content):
        return "it is an OAuth client, with which programs log people in, and nobody's login"
    said = "it has no type" if kind is None else f"its type is {printable(repr(kind)[:60])}"
    return f"{said}; known are {', '.join(kinds)}"
