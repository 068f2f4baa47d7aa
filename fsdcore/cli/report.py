"""What a run did, as tables; and whether it was right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fsdcore.cli.output import say, size, table
from fsdcore.errors import RunError

if TYPE_CHECKING:
    from fsdcore.network.network import Network
    from fsdcore.record.observer import Observer
    from fsdcore.record.record import Record

__all__ = ["check_categories", "check_outputs", "show_record", "show_variants"]


def show_record(record: Record) -> None:
    """One run, a line for each number."""
    rows = _numbers(record)
    rows += [(f"{name}, all workers", _seconds(spent)) for name, spent in record.seconds.items()]
    say(f"run {record.run_id}: backend {record.backend}, {record.channel}")
    table(("what was sent", "total"), rows)


def show_variants(records: Sequence[tuple[str, Record]]) -> None:
    """Several runs of the same work, a column for each."""
    columns = [dict(_numbers(record)) for _, record in records]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    table(("what was sent", *(name for name, _ in records)), rows)


def _numbers(record: Record) -> list[tuple[str, str]]:
    counters = record.counters
    return [
        ("workers", str(record.workers)),
        ("samples", f"{record.samples:,}"),
        ("wall time", _seconds(record.wall_seconds)),
        ("rows", f"{counters.get('rows_sent', 0):,}"),
        ("bytes", size(counters.get("bytes_sent", 0))),
        ("messages", f"{counters.get('messages', 0):,}"),
        ("publishes", f"{counters.get('publishes', 0):,}"),
        ("store writes", f"{counters.get('puts', 0):,}"),
        ("store reads", f"{counters.get('gets', 0):,}"),
    ]


def _seconds(spent: float) -> str:
    return f"{spent:.2f} s"


def check_outputs(network: Network, x: Any, outputs: Any, observer: Observer, what: str = "") -> str:
    """What was found, in a line; `RunError`, naming sample and neuron, if `outputs` of `what` are wrong."""
    from fsdcore.network.verify import verify

    verdict = verify(network, x, outputs, observer)
    if not verdict.right:
        raise RunError(f"{what}{verdict}")
    return str(verdict)


def check_categories(found: Any, truth: Any, file: str) -> None:
    """`RunError`, naming the first sample, if the categories `found` are not those of `file`."""
    wrong = sorted(set(found.tolist()) ^ set(truth.tolist()))
    if wrong:
        where = "missing" if wrong[0] not in found else "not in the file"
        raise RunError(
            f"the categories differ from {file} in {len(wrong)} samples; the first is sample {wrong[0]}, {where}"
        )
