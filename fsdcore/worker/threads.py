"""Workers as threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from fsdcore.clock import Deadline, Thread
from fsdcore.contracts.backend import Backend
from fsdcore.contracts.compute import Compute, Exit, Exits, Invocation
from fsdcore.contracts.limits import ComputeCapabilities
from fsdcore.turns import Turns

_CLOSE_SECONDS = 5.0
# Beyond this threads only wait for each other.
_MOST_WORKERS = 512


class ThreadCompute(Compute):
    """Each invocation is a thread. `worker_backend` is what workers get, by default the backend it was made with.

    `close` waits a few seconds for threads that run, which stop when their run is told to.
    """

    def __init__(self, backend: Backend) -> None:
        self.worker_backend = backend
        self._clock, self._lock, self._turns = backend.clock, threading.Lock(), Turns(backend.clock)
        self._threads: list[Thread] = []
        self._exits = Exits()

    @property
    def capabilities(self) -> ComputeCapabilities:
        return ComputeCapabilities(max_workers=_MOST_WORKERS, reports_exit=True)

    def invoke(self, invocation: Invocation) -> None:
        # Through bytes and back, as every service would have it.
        payload = invocation.to_json()
        name = f"fsd-{invocation.run[:6]}-{invocation.rank}"
        with self._lock:
            self._threads = [other for other in self._threads if other.is_alive()]
            self._threads.append(self._clock.start(partial(self._run, payload), name))

    def _run(self, payload: bytes) -> None:
        from fsdcore.worker.worker import run_worker

        invocation = Invocation.from_json(payload)
        ended = Exit(invocation.rank, "it stopped without an error")
        try:
            with self._turns.taken():
                run_worker(self.worker_backend, invocation)
            ended = Exit(invocation.rank, None)
        except BaseException as error:  # noqa: BLE001 - the end of a thread: there is nobody above to tell
            ended = Exit(invocation.rank, f"{type(error).__name__}: {error}")
        finally:
            self._exits.add(invocation.run, [ended])

    def exits(self, run: str) -> Sequence[Exit]:
        return self._exits.of(run)

    def close(self) -> None:
        deadline = Deadline.after(_CLOSE_SECONDS, self._clock)
        for thread in self._threads:
            thread.join(deadline.remaining())
