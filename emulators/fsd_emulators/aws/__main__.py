"""The process of local AWS: ``python -m fsd_emulators.aws``, started by `LocalAws`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp.web

from fsd_emulators.aws.control import Control
from fsd_emulators.aws.front import Front
from fsd_emulators.aws.lambda_service import LambdaService
from fsd_emulators.aws.ministack import Ministack
from fsd_emulators.processes import HOST
from fsd_emulators.web import listener, serve
from fsdcore.errors import FsdError

_PARENT_SECONDS = 1.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fsd_emulators.aws")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--retry-seconds", type=float, required=True)
    parser.add_argument("--enforce", action="store_true")
    return parser.parse_args()


async def _serve(given: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        (given.folder / "ministack").mkdir(parents=True)
        ministack = Ministack(given.folder / "ministack", region=given.region, enforce=given.enforce)
        stack.push_async_callback(ministack.close)
        await ministack.open()
        functions = LambdaService(
            ministack,
            given.folder,
            f"http://{HOST}:{given.port}",
            concurrency=given.concurrency,
            retry_seconds=given.retry_seconds,
            assume_roles=given.enforce,
        )
        stack.push_async_callback(functions.reset)
        await _listen(stack, given.port, ministack, functions)
        watch = asyncio.create_task(_watch_parent(stopped))
        await stopped.wait()
        watch.cancel()


async def _listen(stack: AsyncExitStack, port: int, ministack: Ministack, functions: LambdaService) -> None:
    front = Front(ministack, functions)
    control = Control(front, functions, ministack)

    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        chosen = control if request.raw_path.startswith(Control.PREFIX) else front
        return await chosen.answer(request)

    # A client that leaves a long poll must not go on taking messages.
    runner = await serve(answer, listener(port), ends_with_caller=True)
    stack.push_async_callback(runner.cleanup)


async def _watch_parent(stopped: asyncio.Event) -> None:
    """Stop when the process that started this one is gone: nobody else would."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_SECONDS)
    stopped.set()


def main() -> int:
    try:
        asyncio.run(_serve(_arguments()))
    except FsdError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
