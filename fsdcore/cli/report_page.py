"""``fsd report``: a run as one page that works offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsdcore.cli.commands import check_apart
from fsdcore.cli.forecast import read_forecast
from fsdcore.cli.insight import MemoryHadOption, Options, PricesOption, memory_had, options
from fsdcore.cli.output import check_output, say, size
from fsdcore.errors import FsdError, InputError
from fsdcore.files import write_text

if TYPE_CHECKING:
    from fsdcore.estimate.bill import Bill
    from fsdcore.record.record import Record

_ENDINGS = (".html", ".htm")


def report(
    record: Annotated[Path, typer.Argument(help="A record that `fsd run --record` wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; beside RECORD, as .html, if left out.")
    ] = None,
    prices: PricesOption = None,
    memory: MemoryHadOption = None,
    option: Options = None,
    before: Annotated[Path | None, typer.Option("--forecast", help="What `fsd forecast -o` wrote.")] = None,
) -> None:
    """Show a run as one page (HTML): where the time went, who sent what to whom, what it cost.

    The page holds all it needs: it opens offline, works from a keyboard, and prints.
    With --prices or --forecast it has the bill.
    """
    file = output or record.with_suffix(".html")
    check_apart({"RECORD": record, **({"--forecast": before} if before else {})}, {"the page": file})
    check_output(file, _ENDINGS, one_format=True)
    if option and not (prices or before):
        raise InputError("--option needs --prices: it chooses lines of a price list")
    from fsdcore.record.file import read_record
    from fsdcore.report import report as page_of

    run, expected = read_record(record), read_forecast(before)
    listed = prices or (expected.prices if expected else None)
    billed = None if listed is None else _bill(run, listed, memory_had(run, memory) << 20, options(option))
    page = page_of(run, billed, expected)
    write_text(file, page)
    say(f"{file}: run {run.run_id}, {size(len(page.encode()))}")


def _bill(run: Record, listed: str, memory_bytes: int, chosen: dict[str, str]) -> Bill:
    from fsdcore.estimate.bill import bill, load_prices, usage_of

    prices = load_prices(listed)
    return bill(usage_of(run, memory_bytes, prices.tariff.compute.vcpus_of(memory_bytes)), prices, chosen)


def trace(
    record: Annotated[Path, typer.Argument(help="A record that `fsd run --trace --record` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the trace (.json).")],
) -> None:
    """Write what each rank of a traced run did when, and who waited for whom.

    The file opens in https://ui.perfetto.dev and in chrome://tracing.
    """
    from fsdcore.files import replacing
    from fsdcore.record.file import read_record
    from fsdcore.report.trace import make_trace

    check_output(output, (".json",), one_format=True)
    read = read_record(record)
    try:
        made = make_trace(read)
    except InputError as error:
        raise _of_file(error, record) from error
    with replacing(output) as temporary:
        temporary.write_bytes(made.data)
    say(
        f"{output}: {read.workers} ranks, {made.slices:,} slices, {made.messages:,} messages that were waited for, "
        f"{size(len(made.data))}"
    )
    for note in made.notes:
        say(f"note: {note}")


def _of_file(error: InputError, file: Path) -> FsdError:
    return type(error)(f"{file}: {error}")
