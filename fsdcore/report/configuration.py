"""How the run was made, and everything it counted."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from fsdcore.record.record import Record
from fsdcore.report.markup import Markup, element, table
from fsdcore.text import count

__all__ = ["configuration"]

_FACTS = ("run_id", "backend", "channel", "workers", "layers", "samples", "batches")
_MEANT = {
    "rows_sent": "activation rows to other ranks",
    "nonzeros_sent": "values in them that are not zero",
    "messages": "what one rank sends another for one layer of one batch",
    "frames": "pieces of messages that fit the channel",
    "publishes": "calls to the channel that carry frames",
    "bytes_sent": "bytes of frames",
    "blocks_sent": "started 64 KiB of publishes",
    "receives": "calls that ask for frames",
    "acknowledges": "calls that acknowledge them",
    "puts": "objects written",
    "gets": "reads of objects",
    "lists": "lists of objects",
    "invocations": "workers started",
}


def configuration(record: Record) -> Markup:
    """The section: settings and counters."""
    counters = [
        (name.replace("_", " "), count(number), _MEANT.get(name, "")) for name, number in record.counters.items()
    ]
    return element(
        "section",
        element("h2", "Configuration and counters", id="configuration-title"),
        table("How it was run", ("setting", "value"), _settings(record), text=(1,)),
        table("What was counted, workers and client", ("counter", "total", "meaning"), counters, text=(2,)),
        id="configuration",
        aria_labelledby="configuration-title",
    )


def _settings(record: Record) -> Iterator[tuple[str, str]]:
    for name in _FACTS:
        yield name.replace("_", " "), str(getattr(record, name))
    for name, value in record.settings.items():
        if name not in _FACTS:
            yield name.replace("_", " "), value if isinstance(value, str) else msgspec.json.encode(value).decode()
