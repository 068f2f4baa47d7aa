"""``python -m benchmarks pull``: unary against streaming pull on local Google Cloud, in instances of the real source.

Needs the extra `gcp` and what `fsd emulate gcp` needs. Google's own Pub/Sub emulator is measured too where it is
installed. Seconds on these servers say nothing of the service; calls and CPU do.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.tables import Table, interleaved, median
from benchmarks.workload import Workload, split, workload
from fsd_emulators.gcp.environment import PROJECT, REGION
from fsd_emulators.gcp.google import GooglePubsub
from fsd_emulators.gcp.local import LocalGcp
from fsd_gcp.backend import GcpBackend
from fsd_gcp.settings import GcpSettings
from fsdcore.client.session import Model, Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import MissingExtraError

_WORKERS = 8
# The channels, and how each pulls.
_WAYS = {"queue": "unary", "stream": "streaming"}


class _Server(NamedTuple):
    """Where Pub/Sub is, and local Google Cloud for the rest."""

    name: str
    local: LocalGcp
    target: str


class _Way:
    """One way of pulling, deployed, with the plan in its bucket."""

    def __init__(self, channel: str, local: LocalGcp, pubsub: str, job: Workload) -> None:
        self._settings = GcpSettings(
            name=channel,
            project=PROJECT,
            region=REGION,
            memory_mb=1_024,
            timeout_seconds=300,
            storage_endpoint=local.storage.url,
            pubsub_endpoint=pubsub,
            functions_endpoint=local.functions.url,
        )
        self._log = local.pubsub.log
        backend = GcpBackend(self._settings)
        backend.provisioner().deploy(_WORKERS)
        self._session = Session(backend, RunSettings(backend="gcp", workers=_WORKERS, channel=channel))
        self._model: Model = self._session.load(job.network, split(job, _WORKERS))
        self._inputs = job.inputs
        self.outputs = b""
        self.taken: list[dict[str, float]] = []

    def run(self) -> float:
        """One run; returns its seconds."""
        self._log.clear()
        workers, services = _cpu_of_instances(), time.process_time()
        result = self._model.run(self._inputs)
        pulls = [call for verb in ("Pull", "StreamingPull") for call in self._log.of(verb, None)]
        sent = self._log.of("Acknowledge", None)
        self.taken.append(
            {
                "answers": len(pulls),
                "empty": sum(call.items == 0 for call in pulls),
                "acknowledges": len(sent),
                "workers": _cpu_of_instances() - workers,
                "services": time.process_time() - services,
            }
        )
        self.outputs = result.outputs.toarray().tobytes()
        return result.record.wall_seconds

    def close(self) -> None:
        self._session.close()


def _cpu_of_instances() -> float:
    """Seconds of processor that the instances of functions have had so far; all are children of this process."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True) if _is_instance(child)]
    return sum(taken.user + taken.system for taken in times)


def _is_instance(process: psutil.Process) -> bool:
    return any(part.endswith("launch.py") for part in process.cmdline())


@contextmanager
def _servers(folder: Path) -> Iterator[list[_Server]]:
    """Ours, and Google's emulator if it is installed."""
    with ExitStack() as stack:
        local = stack.enter_context(LocalGcp(folder))
        found = [_Server("ours", local, local.pubsub.target)]
        try:
            found.append(_Server("Google's emulator", local, stack.enter_context(GooglePubsub(folder)).target))
        except MissingExtraError as missing:
            print(f"{missing}\n")
        yield found


def _rows(server: _Server, job: Workload, repeats: int) -> list[tuple[object, ...]]:
    name, local, target = server
    with ExitStack() as stack:
        ways = {name: stack.enter_context(closing(_Way(kind, local, target, job))) for kind, name in _WAYS.items()}
        # The first run of each is cold.
        for way in ways.values():
            way.run()
            way.taken.clear()
        seconds = interleaved({key: way.run for key, way in ways.items()}, repeats)
        assert len({way.outputs for way in ways.values()}) == 1, "the outputs differ"
        counted = target == local.pubsub.target
        return [(name, key, *_figures(seconds[key], way.taken, counted)) for key, way in ways.items()]


def _figures(seconds: list[float], taken: list[dict[str, float]], counted: bool) -> list[object]:
    calls = [round(median(one[key] for one in taken)) for key in ("answers", "empty", "acknowledges")]
    cpu = [median(one[key] for one in taken) for key in ("workers", "services")]
    return [median(seconds), min(seconds), *(calls if counted else ["-"] * len(calls)), *cpu]


def measure(quick: bool) -> list[Table]:
    """Both ways on each server."""
    job = workload(24 if quick else 120)
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with _servers(folder) as servers:
            for server in servers:
                rows += _rows(server, job, 1 if quick else 5)
    columns = ("Pub/Sub", "pull", "median s", "least s", "answers", "empty", "acknowledges", "CPU workers", "CPU rest")
    note = (
        f"{_WORKERS} workers, warm, {job.inputs.shape[0]:,} inputs; outputs equal to the bit. Answers: of pulls, and "
        "parts of streams, which also carry the acknowledgements of a stream. Rest: this process, with the client and "
        "all local servers but Google's emulator. CPU in seconds."
    )
    return [Table(f"Pulling from Pub/Sub, {job.name}, {len(job.network)} layers", columns, tuple(rows), note)]
