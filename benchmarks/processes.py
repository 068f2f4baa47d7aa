"""Workers that are processes of their own over a directory, so that what each takes can be measured.

``python -m benchmarks.processes --root DIRECTORY`` is such a worker; it imports nothing that only a client needs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from fsd_local import LocalBackend, LocalSettings
from fsdcore.contracts.compute import Compute, Invocation
from fsdcore.worker.worker import keep_memory_together, run_worker


class _Started(Compute):
    """All workers are started by the benchmark, so there is nothing left to start."""

    capabilities = LocalBackend().compute.capabilities

    def invoke(self, invocation: Invocation) -> None:
        del invocation


class _ProcessBackend(LocalBackend):
    @property
    def compute(self) -> Compute:
        return _Started()


class _Processes(Compute):
    """Starts a process per rank, all of them when rank 0 is asked for."""

    capabilities = LocalBackend().compute.capabilities

    def __init__(self, root: str) -> None:
        self._root = root
        self._started: list[subprocess.Popen[bytes]] = []

    def invoke(self, invocation: Invocation) -> None:
        for rank in range(invocation.settings.workers):
            command = [sys.executable, "-m", "benchmarks.processes", "--root", self._root]
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(invocation.for_rank(rank).to_json())
            process.stdin.close()
            self._started.append(process)

    def close(self) -> None:
        for process in self._started:
            process.wait()


class _ClientBackend(LocalBackend):
    def __init__(self, settings: LocalSettings) -> None:
        super().__init__(settings)
        self._processes = _Processes(settings.path)

    @property
    def compute(self) -> Compute:
        return self._processes

    def close(self) -> None:
        self._processes.close()
        super().close()


def client_backend(settings: LocalSettings) -> LocalBackend:
    """A local backend whose workers are processes; `settings` must name a directory."""
    return _ClientBackend(settings)


def _work(root: str) -> None:
    keep_memory_together()
    run_worker(_ProcessBackend(LocalSettings(path=root)), Invocation.from_json(sys.stdin.buffer.read()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="be a worker over this store, told what to do on standard input")
    _work(parser.parse_args().root)


if __name__ == "__main__":
    main()
