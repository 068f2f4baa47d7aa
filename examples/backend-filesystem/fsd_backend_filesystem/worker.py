"""What a worker process runs: ``python -m fsd_backend_filesystem.worker``, with its orders on standard input."""

from __future__ import annotations

import sys

import msgspec

from fsd_backend_filesystem.backend import FilesystemBackend
from fsd_backend_filesystem.compute import FINISHED, Orders
from fsdcore.worker.worker import run_worker


def main() -> None:
    """Run one worker. An error goes into the log as any error of Python does, and the process ends with it."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=Orders)
    run_worker(FilesystemBackend(orders.settings), orders.invocation)
    sys.stderr.write(f"{FINISHED}\n")


if __name__ == "__main__":
    main()
