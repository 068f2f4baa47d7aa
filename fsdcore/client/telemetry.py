"""OpenTelemetry: loads and runs of a session as spans, with one span for each worker.

    session = fsd.connect("local", workers=8, observer=Telemetry())

Needs the extra ``telemetry``, which brings the interface alone: a program that has set up the OpenTelemetry SDK gets
the spans where it sends all its others; in one that has not, nothing happens. Workers need nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fsdcore.errors import MissingExtraError
from fsdcore.record.observer import SILENT, Observer, notice

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from fsdcore.record.record import Record, Setting, WorkerRecord

_OF_RUN = ("run_id", "channel", "layers", "samples", "batches", "wall_seconds")


class Telemetry:
    """An observer that makes spans: ``fsd.load``, ``fsd.run`` and, within it, an ``fsd.worker`` for each rank.

    Progress is passed on to `observer`. Spans go to `provider`, by default to that of the program. A load or run that
    fails ends its span with the error. `MissingExtraError` without the extra ``telemetry``.
    """

    def __init__(self, observer: Observer = SILENT, provider: TracerProvider | None = None) -> None:
        self._observer = observer
        self._tracer = _tracer(provider)

    def progress(self, task: str, done: int, total: int) -> None:
        """Pass it on."""
        self._observer.progress(task, done, total)

    def notice(self, text: str) -> None:
        """Hand it on."""
        notice(self._observer, text)

    @contextmanager
    def during(self, task: str, about: Mapping[str, Setting]) -> Iterator[Callable[[Record], None]]:
        """A span for the block, with what it is `about`; it takes the record of a run."""
        with self._tracer.start_as_current_span(f"fsd.{task}", attributes=_attributes(about)) as span:
            yield lambda record: self._ran(span, record)

    def _ran(self, span: Span, record: Record) -> None:
        """What the record says: of the run, and of each worker by its own clock."""
        span.set_attributes(_attributes({name: getattr(record, name) for name in _OF_RUN}))
        span.set_attributes(_attributes(record.counters, "counters."))
        for worker in record.per_worker:
            child = self._tracer.start_span(
                "fsd.worker", start_time=_nanoseconds(worker.started), attributes=_of_worker(worker)
            )
            child.end(_nanoseconds(worker.ended))


def _tracer(provider: TracerProvider | None) -> Tracer:
    try:
        from opentelemetry.trace import get_tracer
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "telemetry needs the package opentelemetry-api; run: pip install 'fsd-inference[telemetry]'"
        ) from error
    return get_tracer("fsdcore", tracer_provider=provider)


def _of_worker(worker: WorkerRecord) -> dict[str, str | int | float | bool]:
    about = _attributes({"rank": worker.rank, "peak_memory_bytes": worker.peak_memory_bytes})
    counters = _attributes({name: sum(counts) for name, counts in worker.counters.items()}, "counters.")
    seconds = _attributes({name: round(sum(spent), 6) for name, spent in worker.seconds.items()}, "seconds.")
    return {**about, **counters, **seconds}


def _attributes(about: Mapping[str, Setting], group: str = "") -> dict[str, str | int | float | bool]:
    """As attributes of a span, which know no None."""
    return {f"fsd.{group}{name}": value for name, value in about.items() if value is not None}


def _nanoseconds(seconds: float) -> int:
    return round(1e6 * seconds) * 1000
