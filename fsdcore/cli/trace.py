"""``fsd trace``: the record of a traced run as a picture for a trace viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fsdcore.cli.output import check_output, say, size
from fsdcore.errors import FsdError, InputError

__all__ = ["trace"]


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
