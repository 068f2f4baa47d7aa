"""``python -m benchmarks runs``: whole runs over P workers against the plain scipy loop in one process.

The authors' figures beside ours are those they published of runs on AWS (`shared/data/paper`): bytes and messages may
be compared, seconds may not.
"""

from __future__ import annotations

import csv
import functools
import time
from collections.abc import Callable
from typing import Any

import fsdcore as fsd
from benchmarks.plain import plain_loop
from benchmarks.tables import Table, interleaved, median, wall_seconds
from benchmarks.workload import DATA, Workload, split, workload
from fsd_local import LocalBackend
from fsdcore.client.session import Model, Session
from fsdcore.contracts.settings import RunSettings
from fsdcore.record.record import ACTIVITIES, Record

_COUNTERS = ("rows_sent", "bytes_sent", "messages", "publishes")


def _model(job: Workload, partition: fsd.Partition, channel: str) -> Model:
    settings = RunSettings(workers=partition.workers, channel=channel)
    return Session(LocalBackend(), settings).load(job.network, partition)


def against_serial(job: Workload, repeats: int) -> list[Table]:
    """Wall time at 8 workers, and where it goes."""
    partition = split(job, 8)
    models = {channel: _model(job, partition, channel) for channel in ("queue", "object")}
    alone = _model(job, split(job, 1), "queue")
    records: dict[str, Record] = {}
    cpu: dict[str, float] = {}

    def run(name: str, model: Model) -> float:
        begin = time.process_time()
        records[name] = model.run(job.inputs).record
        cpu[name] = time.process_time() - begin
        return records[name].wall_seconds

    def plain() -> float:
        begin = time.process_time()
        taken = wall_seconds(lambda: plain_loop(job.network, job.inputs))
        cpu["plain scipy"] = time.process_time() - begin
        return taken

    works: dict[str, Callable[[], float]] = {
        "plain scipy": plain,
        "1 worker": functools.partial(run, "1 worker", alone),
    }
    works |= {f"8 workers, {name}": functools.partial(run, f"8 workers, {name}", models[name]) for name in models}
    found = interleaved(works, repeats)
    base, best = median(found["plain scipy"]), min(found["plain scipy"])
    rows = [(name, median(t), median(t) / base, min(t), min(t) / best, cpu[name]) for name, t in found.items()]
    columns = ("", "median s", "of plain scipy", "least s", "of plain scipy", "CPU s")
    title = (
        f"Runs, {job.name}, {len(job.network)} layers, {job.inputs.shape[0]:,} inputs, plan cached, all in one process"
    )
    spent = [(name, *(record.seconds[a] for a in ACTIVITIES)) for name, record in records.items()]
    phases = Table(
        "Seconds by activity, summed over workers, which wait for the processor as well",
        ("", *ACTIVITIES),
        tuple(spent),
    )
    return [Table(title, columns, tuple(rows)), phases]


def _published(file: str) -> dict[int, dict[str, str]]:
    """The authors' runs of 1,024 neurons, by workers; empty where their figures do not lie beside the project."""
    path = DATA.parent / "paper" / file
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as lines:
        return {int(row["workers"]): row for row in csv.DictReader(lines) if row["neurons"] == "1024"}


def by_workers(job: Workload, workers: tuple[int, ...]) -> Table:
    """What is sent, by number of workers."""
    published = _published("queue_runs.csv")
    rows: list[tuple[Any, ...]] = []
    for count in workers:
        record = _model(job, split(job, count), "queue").run(job.inputs).record
        sent, theirs = record.counters, published.get(count, {})
        text, as_text = int(theirs.get("bytes_sent", 0)), 4 * -(-sent["bytes_sent"] // 3)
        ours = [record.wall_seconds, *(sent[name] for name in _COUNTERS), as_text]
        calls = [int(theirs.get(name, 0)) for name in ("messages_sent", "publish_calls")]
        rows.append((count, *ours, text, text / as_text, *calls))
    columns = ("P", "wall s", *_COUNTERS, "as base64", "authors' bytes", "times ours", "messages", "publishes")
    return Table(f"Traffic by workers, {job.name}, queue; the last four: the authors'", columns, tuple(rows))


def measure(quick: bool) -> list[Table]:
    """Against serial, and by number of workers."""
    job = workload(24 if quick else 120)
    tables = against_serial(job, 1 if quick else 7)
    return [*tables, by_workers(job, (2, 8) if quick else (2, 4, 8, 20, 42, 62))]
