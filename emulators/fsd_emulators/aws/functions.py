"""Functions as ministack has them, made by CloudFormation or directly, and their code, unpacked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import sys
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsd_emulators.aws.ministack import Ministack
from fsd_emulators.aws.refusals import Refusal

# How old a definition may be: stacks change functions behind the endpoint's back.
_FRESH_SECONDS = 1.0
UNPACKED_BYTES = 262_144_000
_RANGES = {"Timeout": (1, 900), "MemorySize": (128, 10_240)}
_DISK = (512, 10_240)
_VARIABLES_BYTES = 4_096
_RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Function:
    """What an execution environment is made from. `folder` holds the code; `memory` is in MB, `timeout` in seconds."""

    name: str
    arn: str
    region: str
    role: str
    handler: str
    memory: int
    timeout: int
    revision: str
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    reserved: int | None = None
    retries: int = 2
    event_seconds: int = 21_600
    destination: str = ""
    dead_letters: str = ""


class Functions:
    """Definitions from `ministack`, kept for a second; code is unpacked once, into `folder`."""

    def __init__(self, ministack: Ministack, folder: Path) -> None:
        self._ministack, self._folder = ministack, folder
        self._known: dict[tuple[str, str], tuple[float, Function]] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    def forget(self) -> None:
        """Definitions may have changed: look again at the next use."""
        self._known.clear()

    async def get(self, region: str, name: str) -> Function:
        """The function; `Refusal` as Lambda's if there is none or it cannot run here."""
        key = (region or self._ministack.region, name)
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._known.get(key)
            if known is None or time.monotonic() - known[0] > _FRESH_SECONDS:
                known = (time.monotonic(), await self._look(*key))
                self._known[key] = known
            return known[1]

    async def _look(self, region: str, name: str) -> Function:
        found = await self._json(region, f"/2015-03-31/functions/{name}")
        if found is None:
            arn = f"arn:aws:lambda:{region}:000000000000:function:{name}"
            raise Refusal("ResourceNotFoundException", f"Function not found: {arn}", 404)
        settings = found["Configuration"]
        check_settings(settings)
        _check_runtime(settings)
        concurrency = await self._json(region, f"/2019-09-30/functions/{name}/concurrency") or {}
        path = f"/2019-09-25/functions/{name}/event-invoke-config"
        events = await self._json(region, f"{path}?Qualifier=%24LATEST") or await self._json(region, path) or {}
        folder = await self._code(settings["CodeSha256"], found["Code"]["Location"])
        return _function(region, settings, concurrency, events, folder)

    async def _json(self, region: str, path: str) -> dict[str, Any] | None:
        answer = await self._ministack.call("lambda", "GET", path, region=region)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Refusal("ServiceException", f"ministack answered {answer.status} to {path}", 500)
        found: dict[str, Any] = json.loads(answer.body or b"{}")
        return found

    async def _code(self, digest: str, location: str) -> Path:
        folder = self._folder / base64.b64decode(digest).hex()
        if not folder.is_dir():
            answer = await self._ministack.fetch(location)
            if answer.status != 200 or _digest(answer.body) != digest:
                raise Refusal("ServiceException", "the code of the function cannot be had", 500)
            await asyncio.to_thread(_unpack, answer.body, folder)
        return folder


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _unpack(data: bytes, folder: Path) -> None:
    if unpacked_size(data) > UNPACKED_BYTES:
        raise Refusal("InvalidParameterValueException", f"Unzipped size must be smaller than {UNPACKED_BYTES} bytes")
    partial = folder.with_suffix(".partial")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(partial)
    partial.rename(folder)


def unpacked_size(data: bytes) -> int:
    """Bytes of all files in a zip; `Refusal` if it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return sum(file.file_size for file in archive.infolist())
    except zipfile.BadZipFile as error:
        raise Refusal(
            "InvalidParameterValueException", "Could not unzip uploaded file. Please check your file, then try again."
        ) from error


def check_settings(settings: dict[str, Any]) -> None:
    """`Refusal` if the settings of a function break Lambda's limits; those that are missing have defaults."""
    disk = (settings.get("EphemeralStorage") or {}).get("Size", _DISK[0])
    values = [(name, settings.get(name, low), low, high) for name, (low, high) in _RANGES.items()]
    for name, value, low, high in [*values, ("EphemeralStorage.Size", disk, *_DISK)]:
        if not isinstance(value, int) or not low <= value <= high:
            raise Refusal("InvalidParameterValueException", f"{name} must be {low} to {high}, not {value}")
    variables = (settings.get("Environment") or {}).get("Variables") or {}
    if sum(len(f"{name}{value}".encode()) for name, value in variables.items()) > _VARIABLES_BYTES:
        raise Refusal(
            "InvalidParameterValueException",
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided exceeded the 4KB limit.",
        )


def _check_runtime(settings: dict[str, Any]) -> None:
    """What only this machine's Lambda cannot run."""
    if settings.get("PackageType", "Zip") != "Zip" or settings.get("Layers"):
        raise Refusal("InvalidRuntimeException", "local AWS runs functions from zip files without layers only", 502)
    if settings.get("Runtime") != _RUNTIME:
        runtime = settings.get("Runtime")
        raise Refusal("InvalidRuntimeException", f"local AWS runs its own {_RUNTIME} only, not {runtime}", 502)


def _function(
    region: str, settings: dict[str, Any], concurrency: dict[str, Any], events: dict[str, Any], folder: Path
) -> Function:
    failed = (events.get("DestinationConfig") or {}).get("OnFailure") or {}
    return Function(
        name=settings["FunctionName"],
        arn=settings["FunctionArn"],
        region=region,
        role=settings["Role"],
        handler=settings["Handler"],
        memory=settings["MemorySize"],
        timeout=settings["Timeout"],
        revision=f"{settings['RevisionId']} {settings['CodeSha256']}",
        folder=folder,
        variables=dict((settings.get("Environment") or {}).get("Variables") or {}),
        reserved=concurrency.get("ReservedConcurrentExecutions"),
        retries=events.get("MaximumRetryAttempts", 2),
        event_seconds=events.get("MaximumEventAgeInSeconds", 21_600),
        destination=failed.get("Destination", ""),
        dead_letters=(settings.get("DeadLetterConfig") or {}).get("TargetArn", ""),
    )
