"""Who one is: tokens that say whose they are, and the metadata server that gives a machine its own.

Tokens have the form of Google's and are signed by nobody.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp.web import BaseRequest, Response, StreamResponse

from fsd_emulators.web import WebServer
from fsdcore.clock import SYSTEM_CLOCK

_HOUR = 3_600
_ACCOUNT = "/computeMetadata/v1/instance/service-accounts/"
_FLAVOR = {"Metadata-Flavor": "Google"}


def token_for(email: str, audience: str = "") -> str:
    """A token of `email` for an hour."""
    claims = {"email": email, "aud": audience, "exp": int(SYSTEM_CLOCK.wall()) + _HOUR}
    return ".".join((_part({"alg": "none"}), _part(claims), _part({})))


def granted(form: dict[str, list[str]]) -> dict[str, Any]:
    """What Google's token service answers to a person, whose refresh token is the e-mail address, or to a key."""
    if "assertion" not in form:
        return {"access_token": token_for(form["refresh_token"][0]), "expires_in": _HOUR, "token_type": "Bearer"}
    claims = _claims(form["assertion"][0])
    if "target_audience" in claims:
        return {"id_token": token_for(claims["iss"], claims["target_audience"])}
    return {"access_token": token_for(claims["iss"]), "expires_in": _HOUR, "token_type": "Bearer"}


def email_of(token: str) -> str:
    """Whose token it is; empty if it does not say."""
    try:
        return str(_claims(token)["email"])
    except (IndexError, ValueError, KeyError, TypeError):
        return ""


def _claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def _part(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


class MetadataServer(WebServer):
    """What a machine of `project` asks who it is: the account `email`.

    With `shell` it is as Cloud Shell's: of a person, and without identity tokens.
    """

    def __init__(self, project: str, email: str, shell: bool = False) -> None:
        super().__init__()
        self.project, self.email, self.shell = project, email, shell

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead Google's library here."""
        host = urlsplit(self.url).netloc
        return {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}

    async def answer(self, request: BaseRequest) -> StreamResponse:
        asked = urlsplit(request.raw_path)
        content = self._found(asked.path, parse_qs(asked.query))
        if content is None:
            return Response(status=404, text="not found", headers=_FLAVOR)
        kind = "text" if isinstance(content, str) else "json"
        text = content if isinstance(content, str) else json.dumps(content)
        return Response(body=text.encode(), headers=_FLAVOR, content_type=f"application/{kind}")

    def _found(self, path: str, query: dict[str, list[str]]) -> str | dict[str, Any] | None:
        about = path.removeprefix(_ACCOUNT).partition("/")[2]
        if path.endswith("/project-id"):
            return self.project
        if path == "/":
            return ""
        if not path.startswith(_ACCOUNT):
            return None
        if about == "token":
            return {"access_token": token_for(self.email), "expires_in": _HOUR, "token_type": "Bearer"}
        if about == "identity":
            return None if self.shell else token_for(self.email, query["audience"][0])
        return {"email": self.email, "scopes": ["cloud-platform"], "aliases": ["default"]}
