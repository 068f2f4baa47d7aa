"""Workers as processes.

Rank 0 is started by the client and the others by workers, so that nobody is the parent of all of them. How each ended
can be told all the same: a process holds a lock on its log from before it starts until it is gone, however it goes,
and the last that one which finished has written there is a line that says so.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fsd_backend_filesystem.settings import FilesystemSettings
from fsdcore.contracts.compute import Compute, Exit, Invocation
from fsdcore.contracts.limits import ComputeCapabilities
from fsdcore.errors import ComputeError

FINISHED = "worker finished"
_COMMAND = (sys.executable, "-m", "fsd_backend_filesystem.worker")


class Orders(msgspec.Struct, frozen=True):
    """What a worker process finds on its standard input, as JSON."""

    settings: FilesystemSettings
    invocation: Invocation


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ComputeError(f"{doing}: {error}") from error


class ProcessCompute(Compute):
    """Each invocation is a process of its own. `settings.root` must be an absolute path."""

    def __init__(self, settings: FilesystemSettings) -> None:
        self._settings, self._logs = settings, Path(settings.root) / "logs"
        self._running: dict[subprocess.Popen[bytes], str] = {}

    @property
    def capabilities(self) -> ComputeCapabilities:
        return ComputeCapabilities(max_workers=64, reports_exit=True)

    def invoke(self, invocation: Invocation) -> None:
        with _translated(f"no process could be started for rank {invocation.rank}"):
            process = self._start(invocation)
        self._running[process] = invocation.run
        # A process that has ended stays in the system's table until its parent has waited for it.
        threading.Thread(target=self._await_end, args=(process,), daemon=True).start()

    def _start(self, invocation: Invocation) -> subprocess.Popen[bytes]:
        # The orders are in a file, not a pipe: nobody need wait until the process has read them.
        with tempfile.TemporaryFile() as orders, _new_log(self._logs / invocation.run, invocation.rank) as log:
            orders.write(msgspec.json.encode(Orders(self._settings, invocation)))
            orders.seek(0)
            # A session of its own: Ctrl-C is for the client, which tells the workers.
            return subprocess.Popen(_COMMAND, stdin=orders, stdout=log, stderr=log, start_new_session=True)

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._running.pop(process, None)

    def exits(self, run: str) -> Sequence[Exit]:
        with _translated(f"the logs of run {run} cannot be read"):
            ends = [_end(log) for log in sorted((self._logs / run).glob("*.log"))]
        return [end for end in ends if end is not None]

    def cancel(self, run: str) -> None:
        """Stop the workers that this process has started; the others get the abort frames."""
        for process, its_run in self._running.copy().items():
            if its_run == run:
                process.terminate()


@contextmanager
def _new_log(folder: Path, rank: int) -> Iterator[int]:
    """A locked file for a process to inherit, and the lock with it; seen by others once there is that process."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=f"{rank}-", suffix=".starting", dir=folder, delete=False) as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        yield log.fileno()
        Path(log.name).rename(Path(log.name).with_suffix(".log"))


def _end(log: Path) -> Exit | None:
    """How the worker with this log ended; None if it has not."""
    with log.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        lines = stream.read().decode(errors="replace").strip().splitlines()
    said = lines[-1] if lines else "it gave no reason"
    return Exit(int(log.name.partition("-")[0]), None if said == FINISHED else f"{said} (see {log})")
