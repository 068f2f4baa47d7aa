"""Loads and runs as spans of OpenTelemetry."""

from __future__ import annotations

import sys
from contextlib import closing

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fsd_local import LocalBackend
from fsdcore.client.session import Result, Session
from fsdcore.client.telemetry import Telemetry
from fsdcore.contracts.settings import RunSettings
from fsdcore.errors import ChannelError, InputError, MissingExtraError
from fsdcore.faults import Refuse
from fsdcore.network.network import Network
from fsdcore.partition import make_partition
from fsdcore.testing import FaultyBackend, random_inputs, random_network
from tests.test_public_api import loaded_by

SETTINGS = RunSettings(workers=3, method="block")


class Collected:
    """An observer, and the spans it has made."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tasks: set[str] = set()
        self.observer = Telemetry(self, provider)

    def progress(self, task: str, done: int, total: int) -> None:
        del done, total
        self.tasks.add(task)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def collected() -> Collected:
    return Collected()


@pytest.fixture
def network() -> Network:
    return random_network((20, 24, 24, 20))


def _run(collected: Collected, network: Network) -> Result:
    with closing(Session(LocalBackend(), SETTINGS, collected.observer)) as session:
        return session.load(network).run(random_inputs(30, 20), batch_size=10)


def _attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_a_load_and_a_run_are_a_span_each(collected: Collected, network: Network) -> None:
    record = _run(collected, network).record
    (load,), (run,) = collected.named("fsd.load"), collected.named("fsd.run")
    assert _attributes(load) == {"fsd.network": network.name, "fsd.backend": "local", "fsd.workers": 3}
    assert _attributes(load).items() <= _attributes(run).items()
    told = {"fsd.run_id": record.run_id, "fsd.samples": 30, "fsd.batches": 3, "fsd.channel": "queue"}
    assert _attributes(run).items() >= told.items()
    assert _attributes(run)["fsd.counters.messages"] == record.counters["messages"]
    assert load.status.status_code == run.status.status_code == StatusCode.UNSET


def test_each_worker_is_a_span_within_the_run_by_its_own_clock(collected: Collected, network: Network) -> None:
    record = _run(collected, network).record
    (run,), workers = collected.named("fsd.run"), collected.named("fsd.worker")
    assert [_attributes(span)["fsd.rank"] for span in workers] == [0, 1, 2]
    for span, worker in zip(workers, record.per_worker, strict=True):
        assert span.parent == run.context
        assert span.start_time == pytest.approx(1e9 * worker.started, abs=1000)
        assert span.end_time == pytest.approx(1e9 * worker.ended, abs=1000)
        told = _attributes(span)
        assert told["fsd.counters.rows_sent"] == sum(worker.counters["rows_sent"])
        assert told["fsd.seconds.multiply"] == pytest.approx(sum(worker.seconds["multiply"]), abs=1e-5)
        assert told["fsd.peak_memory_bytes"] == worker.peak_memory_bytes


def test_progress_is_passed_on(collected: Collected, network: Network) -> None:
    _run(collected, network)
    assert collected.tasks >= {"plan", "layers"}


def test_a_run_that_fails_ends_its_span_with_the_error(collected: Collected, network: Network) -> None:
    backend = FaultyBackend(LocalBackend(), Refuse("send", by=2, times=1))
    with closing(Session(backend, SETTINGS, collected.observer)) as session:
        model = session.load(network)
        with pytest.raises(ChannelError):
            model.run(random_inputs(4, 20))
    (run,) = collected.named("fsd.run")
    assert run.status.status_code == StatusCode.ERROR
    assert [event.name for event in run.events] == ["exception"]
    assert collected.named("fsd.worker") == []


def test_a_load_that_fails_ends_its_span_with_the_error(collected: Collected, network: Network) -> None:
    with closing(Session(LocalBackend(), SETTINGS, collected.observer)) as session, pytest.raises(InputError):
        session.load(network, make_partition(network, 2, "block"))
    (load,) = collected.named("fsd.load")
    assert load.status.status_code == StatusCode.ERROR


def test_a_program_without_a_provider_runs_as_ever(network: Network) -> None:
    with closing(Session(LocalBackend(), SETTINGS, Telemetry())) as session:
        assert session.load(network).run(random_inputs(4, 20)).outputs.shape == (4, 20)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fsd-inference\[telemetry\]'"):
        Telemetry()


def test_who_does_not_ask_for_it_does_not_load_it() -> None:
    imports = "import fsdcore.client.session, fsdcore.worker.worker, fsdcore.cli.app, fsd_local"
    assert "opentelemetry" not in loaded_by(imports)
