"""What clients ask of local AWS itself: its logs, faults, the end of an environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp.web
import msgspec

from fsd_emulators.aws.front import Front
from fsd_emulators.aws.lambda_service import LambdaService
from fsd_emulators.aws.lateness import Lateness
from fsd_emulators.aws.ministack import Ministack
from fsd_emulators.web import whole_body
from fsdcore.errors import ConfigError
from fsdcore.faults import AnyFault


class Control:
    """What clients ask of local AWS itself, under ``/_fsd/``: JSON in and out."""

    PREFIX = "/_fsd/"

    def __init__(self, front: Front, functions: LambdaService, ministack: Ministack) -> None:
        self._front, self._lambda, self._ministack = front, functions, ministack
        self._reads: dict[str, Callable[[Mapping[str, str]], Any]] = {
            "health": lambda query: {"ready": True},
            "requests": lambda query: [
                record for record in front.records if record.number > int(query.get("since", 0))
            ],
            "invocations": lambda query: list(functions.records),
            "environments": lambda query: functions.environments(),
            "pending": lambda query: functions.pending,
        }

    async def answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        word = urlsplit(request.raw_path).path.removeprefix(self.PREFIX)
        if request.method == "GET" and word in self._reads:
            return _json(self._reads[word](request.query))
        if request.method == "POST" and word == "faults":
            try:
                self._front.faults.set(*msgspec.json.decode(await whole_body(request), type=list[AnyFault]))
            except (msgspec.MsgspecError, ConfigError) as error:
                return _json({"error": str(error)}, 400)
            return _json(None)
        if request.method == "POST" and word == "lateness":
            self._front.set_lateness(msgspec.json.decode(await whole_body(request), type=Lateness))
            return _json(None)
        if request.method == "POST" and word == "kill":
            return _json(self._lambda.kill((await whole_body(request)).decode()))
        if request.method == "POST" and word == "reset":
            await self._lambda.reset()
            await self._ministack.reset()
            self._front.reset()
            return _json(None)
        return _json({"error": f"no {request.method} {word}"}, 404)


def _json(value: Any, status: int = 200) -> aiohttp.web.StreamResponse:
    return aiohttp.web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
