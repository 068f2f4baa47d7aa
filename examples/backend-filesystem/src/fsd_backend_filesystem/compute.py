"""Workers as processes."""

import subprocess
import sys
import tempfile
import threading

from fsdcore.capabilities import ComputeCapabilities
from fsdcore.compute import Compute, Invocation
from fsdcore.errors import ComputeError


class ProcessCompute(Compute):
    """Each invocation is a process of its own, which outlives the one that started it.

    `settings` is the backend's settings as JSON, from which the worker makes the backend again.
    """

    def __init__(self, settings: bytes) -> None:
        self._command = [sys.executable, "-m", "fsd_backend_filesystem.worker", settings.decode()]

    @property
    def capabilities(self) -> ComputeCapabilities:
        return ComputeCapabilities()

    def invoke(self, invocation: Invocation) -> None:
        try:
            # A file, not a pipe: nobody need wait until the process has begun to read.
            with tempfile.TemporaryFile() as payload:
                payload.write(invocation.to_json())
                payload.seek(0)
                process = subprocess.Popen(self._command, stdin=payload, start_new_session=True)
        except OSError as error:
            raise ComputeError(f"no worker process could be started: {error}", rank=invocation.rank) from error
        # A process that has ended stays in the system's table until it is waited for.
        threading.Thread(target=process.wait, daemon=True).start()
