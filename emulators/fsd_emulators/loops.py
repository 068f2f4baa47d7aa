"""An event loop in a thread of its own, for servers that live in the process of those who use them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_Result = TypeVar("_Result")
# What answers a request may wait in a thread, for an instance or a timer: as many as may be asked at once.
_MOST_THREADS = 1_000


class LoopThread:
    """The loop; `name` is the thread's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Run a new loop."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_MOST_THREADS, self._name))
        self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
        self._thread.start()

    @property
    def runs(self) -> bool:
        return self._thread is not None

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run `work` on the loop to its end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def stop(self) -> None:
        """End the loop and the thread. May be called twice, and before `start`."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self.run(_end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join()
        self._loop.close()


async def _end_tasks() -> None:
    """End what is still under way, such as connections that were not yet a server's when it was closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    # What was closed has ended in the loop's next turn.
    await asyncio.sleep(0)
