"""What a worker process runs: the settings are its argument, the invocation its standard input."""

import sys

import msgspec

from fsd_backend_filesystem.backend import FilesystemBackend, FilesystemSettings
from fsdcore.compute import Invocation
from fsdcore.errors import FsdError
from fsdcore.worker import run_worker


def main() -> int:
    """Run one worker; the status is 1 if it failed, which it has told the client and its peers by then."""
    backend = FilesystemBackend(msgspec.json.decode(sys.argv[1], type=FilesystemSettings))
    invocation = Invocation.from_json(sys.stdin.buffer.read())
    try:
        run_worker(backend, invocation)
    except FsdError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
