"""``fsd calibrate``: measure a deployment for its forecasts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fsdcore.cli.commands import check_apart
from fsdcore.cli.output import check_output, say
from fsdcore.cli.progress import watching
from fsdcore.cli.signals import running_workers
from fsdcore.client.config import FILE_VARIABLE, load_config
from fsdcore.errors import InputError
from fsdcore.files import write_text

__all__ = ["calibrate"]


def calibrate(
    named: Annotated[
        str | None, typer.Argument(metavar="[BACKEND]", help="What to measure, as --backend; see `fsd backends`.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write the model (.toml); left out, BACKEND-model.toml."),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="What to measure; see `fsd backends`.")] = None,
    config: Annotated[Path | None, typer.Option(help="A configuration file (TOML).")] = None,
) -> None:
    """Measure how fast workers compute and services answer, for `fsd forecast --model`.

    Makes short runs and a few requests, which a cloud bills.
    """
    if named and backend and named != backend:
        raise InputError(f"BACKEND is {named}, and --backend {backend}: give one")
    settings = load_config(config, backend=named or backend)
    output = output or _usual(settings.run.backend, config)
    check_output(output, (".toml",), one_format=True)
    from fsdcore.api import connect_config
    from fsdcore.estimate.calibrate import calibrate as measured
    from fsdcore.estimate.speeds import model_text

    with watching() as observer, connect_config(settings, observer) as session, running_workers():
        model = measured(session.backend, settings.run, observer)
    write_text(output, model_text(model))
    compute = model.compute
    say(f"{output}: {compute.multiply_rate:.3g} multiply-adds/s, {compute.codec_rate:.3g} values/s encoded")
    delays = {
        kind: one.send_seconds + one.delivery_seconds + one.receive_seconds for kind, one in model.channels.items()
    }
    for kind, channel in model.channels.items():
        quickest = " (the quickest for small messages)" if delays[kind] == min(delays.values()) else ""
        say(f"{kind}: {1000 * delays[kind]:.3g} ms from end to end, {channel.bytes_per_second:.3g} bytes/s{quickest}")


def _usual(backend: str, config: Path | None) -> Path:
    """The file for a model that none is named for."""
    output = Path(f"{backend}-model.toml")
    read = {"--config": config} if config else {FILE_VARIABLE: Path(os.environ.get(FILE_VARIABLE) or os.devnull)}
    check_apart(read, {"--output": output})
    return output
