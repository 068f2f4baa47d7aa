"""``fsd run``: a network, inputs, outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fsdcore.cli.commands import run_options
from fsdcore.cli.insight import Billing, MemoryOfBackendOption, ModelOption, PricesOption, forecast_for, show_bill_of
from fsdcore.cli.output import check_output, say, size, table, watching
from fsdcore.cli.signals import running_workers
from fsdcore.client.config import Config, load_config
from fsdcore.errors import FormatError, InputError, PlanError, RunError
from fsdcore.files import write_text

if TYPE_CHECKING:
    from fsdcore.client.session import Result
    from fsdcore.network.network import Network
    from fsdcore.partition import Partition
    from fsdcore.record.observer import Observer
    from fsdcore.record.record import Record


@dataclass(frozen=True)
class _Files:
    """What is read and what is written."""

    network: Path
    inputs: Path
    partition: Path | None
    truth: Path | None
    output: Path | None
    categories: Path | None
    record: Path | None
    samples: int | None = None

    def check(self) -> None:
        """Refuse, before the work, what could not be written after it."""
        if self.inputs.suffix == ".safetensors" and self.network.suffix != ".safetensors":
            raise InputError(f"{self.network} and {self.inputs} are swapped: the network comes first, then the inputs")
        check_output(self.output, (".npz", ".npy"))
        check_output(self.categories)
        check_output(self.record)


@run_options()
def run(
    network: Annotated[Path, typer.Argument(help="A network file (.safetensors).")],
    inputs: Annotated[Path, typer.Argument(help="The samples (.npz, .npy, .mtx, .tsv, .tsv.gz).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the outputs (.npz or .npy).")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="How many samples there are, where a TSV has no line for the last.", min=0)
    ] = None,
    partition: Annotated[Path | None, typer.Option(help="A split that `fsd partition` wrote.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with the network in float64, in this process.")
    ] = False,
    truth: Annotated[Path | None, typer.Option(help="Compare with the categories in this file.")] = None,
    categories: Annotated[Path | None, typer.Option(help="Where to write the samples with a nonzero output.")] = None,
    record: Annotated[Path | None, typer.Option(help="Where to write the run's record (JSON).")] = None,
    bill: Annotated[bool, typer.Option("--bill", help="Show what it cost, next to its forecast.")] = False,
    prices: PricesOption = None,
    model: ModelOption = None,
    memory: MemoryOfBackendOption = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (TOML).")] = None,
    **given: Any,
) -> None:
    """Run a network on inputs, and write the outputs.

    Options left out come from the environment, the configuration file, or the defaults: see
    `fsd config show`.
    What was asked for is written before --verify and --truth look at it: a wrong run ends with exit code 1, and its
    outputs are there.
    """
    files = _Files(network, inputs, partition, truth, output, categories, record, samples)
    if given["trace"] and record is None:
        raise InputError("--trace needs --record FILE: the trace is a part of the record")
    if partition is not None and (given["method"], given["seed"]) != (None, None):
        raise InputError("--partition is a split that is made already: leave out --method and --seed")
    settings = load_config(config, **given)
    files.check()
    wanted = Billing(prices, model, memory) if bill else None
    _run(files, settings, verify, {"file": config, **given}, wanted)


def _run(files: _Files, settings: Config, verify: bool, arguments: dict[str, Any], wanted: Billing | None) -> None:
    from fsdcore.network.formats import load_categories, load_inputs, load_network

    truth = load_categories(files.truth) if files.truth is not None else None
    with watching() as observer:
        network = load_network(files.network, observer)
        x = load_inputs(files.inputs, network.inputs, files.samples)
        split = _split(files.partition, network)
        if split is not None:
            settings = _for_workers(split, settings, arguments)
        before = forecast_for(settings, network, split, x, wanted) if wanted else None
        result = _result(settings, network, split, x, observer)
    _write(files, result)
    show_record(result.record)
    if wanted and before:
        show_bill_of(result.record, wanted, before)
    nonzero = f"{result.categories().size:,} of {result.record.samples:,} samples have a nonzero output"
    if verify:
        with watching() as observer:
            nonzero += f"; {check_outputs(network, x, result.outputs, observer)}"
    if truth is not None:
        check_categories(result.categories(), truth, str(files.truth))
    say(nonzero)


def _split(file: Path | None, network: Network) -> Partition | None:
    """The partition in `file`, checked against the network."""
    if file is None:
        return None
    from fsdcore.partition import load_partition

    split = load_partition(file)
    try:
        split.check(network)
    except PlanError as error:
        raise PlanError(f"{file}: {error.message}; make another with `fsd partition`") from error
    return split


def _for_workers(split: Partition, settings: Config, arguments: dict[str, Any]) -> Config:
    """The settings with as many workers as the partition has, unless the user asked for another number."""
    asked = settings.run.workers
    if asked == split.workers:
        return settings
    if settings.origins["workers"] != "default":
        raise PlanError(
            f"the partition is for {split.workers} workers, {asked} were asked for ({settings.origins['workers']})"
        )
    return load_config(**{**arguments, "workers": split.workers})


def _result(settings: Config, network: Network, split: Partition | None, x: Any, observer: Any) -> Result:
    from fsdcore.api import connect_config

    with connect_config(settings, observer) as session:
        model = session.load(network, split)
        with running_workers():
            return model.run(x)


def _write(files: _Files, result: Result) -> None:
    """Write each file, also if another cannot be written: the run is paid for. Raises the first error."""
    from fsdcore.network.formats import save_categories, save_outputs

    writes: list[tuple[Path | None, Callable[[Path], None]]] = [
        (files.output, lambda path: save_outputs(path, result.outputs)),
        (files.categories, lambda path: save_categories(path, result.categories())),
        (files.record, lambda path: write_text(path, result.record.to_json() + "\n")),
    ]
    errors = []
    for path, write in writes:
        try:
            if path is not None:
                write(path)
        except FormatError as error:
            errors.append(error)
    if errors:
        raise errors[0]


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


_NEURONS, _LAYERS, _SAMPLES = 1024, 120, 1000
_CHANNELS = ("queue", "object")


def demo(
    workers: Annotated[int, typer.Option(help="How many workers share the network.", min=2)] = 8,
    channel: Annotated[str | None, typer.Option(help="Only this channel; queue and object if left out.")] = None,
) -> None:
    """Run a generated network on this machine, alone and split over workers, and check the outputs."""
    variants = dict(_variants(workers, channel))
    with watching() as observer:
        network, x = _work(observer)
        results = _results(variants, network, x, observer)
    say(f"{_LAYERS} layers of {_NEURONS:,} neurons, {network.nonzeros:,} weights, {_SAMPLES:,} samples")
    show_variants([(name, result.record) for name, result in results.items()])
    with watching() as observer:
        for name, result in results.items():
            check_outputs(network, x, result.outputs, observer, f"{name}: ")
    say(f"{', '.join(results)}: all outputs are right, compared with the network in float64")


def _variants(workers: int, channel: str | None) -> Iterator[tuple[str, Config]]:
    """The runs to compare, each with its name."""
    yield "serial", load_config(backend="local", workers=1, channel="queue")
    for kind in (channel,) if channel else _CHANNELS:
        yield kind, load_config(backend="local", workers=workers, channel=kind)


def _work(observer: Observer) -> tuple[Network, Any]:
    from fsdcore.network.generate import digits, radixnet

    return radixnet(_NEURONS, _LAYERS, observer=observer), digits(_SAMPLES, _NEURONS)


def _results(variants: dict[str, Config], network: Network, x: Any, observer: Observer) -> dict[str, Result]:
    from fsdcore.api import connect_config

    results: dict[str, Result] = {}
    splits: dict[int, Partition] = {}
    for name, settings in variants.items():
        split = _chosen_split(splits, network, settings, observer)
        with connect_config(settings, observer) as session:
            model = session.load(network, split)
            with running_workers():
                results[name] = model.run(x)
    return results


def _chosen_split(splits: dict[int, Partition], network: Network, settings: Config, observer: Observer) -> Partition:
    """The partition for that many workers; made once, the variants share it."""
    from fsdcore.partition import make_partition

    run = settings.run
    if run.workers not in splits:
        splits[run.workers] = make_partition(network, run.workers, run.method, run.seed, observer)
    return splits[run.workers]
